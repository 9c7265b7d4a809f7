"""The weights: loading them, adapters and quantisation, processes that share them, and what a fold saves."""

import logging

# On CPUs with bf16 units bitsandbytes advises to fetch native code from a hub; this project never does.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
