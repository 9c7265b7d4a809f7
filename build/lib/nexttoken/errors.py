"""The one exception meant for people: a single line that says what happened, what was expected, and the fix."""

from collections.abc import Iterable


class UserError(Exception):
    """Something the user can mend; the entries print it as one line and exit with status 2."""


def first_five(items: Iterable[object]) -> str:
    """`a, b, c, d, e and 12 more`: enough of a list to act on, never the whole of it."""
    shown = [str(item) for item in items]
    more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
    return ", ".join(shown[:5]) + more
