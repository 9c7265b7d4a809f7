"""The memory plan of a run, made without its weights; the settings that would fit, and numbers in place of auto."""
