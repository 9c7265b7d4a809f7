"""The nearest known name to a mistyped one, for every error that refuses a key."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(wrong: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?`, or the list of known names where none is near."""
    names = sorted(known)
    close = get_close_matches(wrong, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
