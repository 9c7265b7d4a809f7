"""Errors for users: one line with what happened, what was expected, and the fix."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """An error that the user can fix; commands print it as one line and exit with status 2."""


class MissingFile(UserError):
    """A file that is not there: it may come later, whereas a faulty one has to be mended."""


def refuse_below_one(name: str, value: int) -> None:
    if value < 1:
        raise UserError(f"{name}={value}: expected at least 1")


def one_line(error: object, num_characters: int = 200) -> str:
    """The beginning of an error's text, without line breaks."""
    return " ".join(str(error).split())[:num_characters]


def first_five(items: Iterable[object]) -> str:
    """Return the first five items and the number of the others: `a, b, c, d, e and 12 more`."""
    shown = [str(item) for item in items]
    more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
    return ", ".join(shown[:5]) + more


def nearest(wrong: str, known: Iterable[str]) -> str:
    """Return `did you mean 'x'?`, or the list of known names if none is similar."""
    names = sorted(known)
    close = get_close_matches(wrong, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
