"""A finished run that answers questions again: for predict.py, for a notebook, and for what compares or merges runs."""

from nexttoken.loaded.run import LoadedRun, load_run
from nexttoken.loaded.writing import Writing

__all__ = ["LoadedRun", "Writing", "load_run"]
