"""The one exception meant for people: a single line that says what happened, what was expected, and the fix."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """Something the user can mend; the entries print it as one line and exit with status 2."""


def first_five(items: Iterable[object]) -> str:
    """`a, b, c, d, e and 12 more`: enough of a list to act on, never the whole of it."""
    shown = [str(item) for item in items]
    more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
    return ", ".join(shown[:5]) + more


def nearest(wrong: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?`, or the list of known names where none is near."""
    names = sorted(known)
    close = get_close_matches(wrong, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
