"""The weights: loading them, adapters and quantisation, processes that share them, and what a fold saves."""
