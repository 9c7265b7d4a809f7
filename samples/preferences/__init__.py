"""The embedded sample competition: generated, tracked under input/sample-preferences, its true probabilities known."""
