"""Competitions and evaluations answered by causal language models: the next token is the prediction."""

from typing import Any

__all__ = ["load_run"]


def __getattr__(name: str) -> Any:
    """Import `load_run` when it is asked for: a plain `import nexttoken` stays light."""
    if name != "load_run":
        raise AttributeError(f"module 'nexttoken' has no attribute {name!r}")
    from nexttoken.runs.load import load_run

    return load_run
