"""Errors for users: one line with what happened, what was expected, and the fix."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

# Control characters but tabs and line ends, marks that turn the direction of writing, and halves of characters.
UNSHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# No separators, nothing hidden, no spaces at the ends.
FILE_NAME = re.compile(r"(?![.\s])[^/\\\t\n]+(?<!\s)")
MAX_NAME_BYTES = 200  # of a folder's or file's name: file systems take 255, and endings are added
MAX_SHOWN_NAMES = 20
FULL_DISK = "is the disk full? Make room there, or give another path"  # libraries do not say why a write failed
# What libraries say of the machine: torch, the C++ library and the loader of memory, those written in Rust of files.
NO_MEMORY = re.compile(
    r"can't allocate memory|Cannot allocate memory|out of memory|bad_alloc|failed to map segment|can't start new thread"
)
FAILED_FILE = re.compile(r"\(os error \d+\)")
MAX_CHARACTERS, NUM_END = 2_000, 500  # of a line of an error, and of its end, which has the fix


class UserError(Exception):
    """An error that the user can fix; commands print it as one line and exit with status 2.

    A line that shows a giant value of the data loses its middle.
    """

    def __init__(self, text: str) -> None:
        super().__init__("\n".join(map(_shortened, text.split("\n"))))


class MissingFile(UserError):
    """A file that is not there: it may come later, whereas a faulty one has to be mended."""


def _shortened(line: str) -> str:
    fits = len(line) <= MAX_CHARACTERS
    return line if fits else f"{line[: MAX_CHARACTERS - NUM_END - 5]} ... {line[-NUM_END:]}"


def refuse_below_one(name: str, value: int) -> None:
    if value < 1:
        raise UserError(f"{name}={value}: expected at least 1")


def file_name(name: object, key: str = "name") -> str:
    """Return the name of a folder or file. Raises UserError for one that not every file system and shell can hold."""
    text = str(name)
    if not FILE_NAME.fullmatch(text) or UNSHOWN.search(text) or len(text.encode()) > MAX_NAME_BYTES:
        what = "a file name without / and \\, not beginning with a dot or space, on one line of at most 200 bytes"
        raise UserError(f"{key}={text!r:.200} is not accepted: expected {what}")
    return text


def one_line(error: object, num_characters: int = 200) -> str:
    """The beginning of an error's text, without line breaks."""
    return " ".join(str(error).split())[:num_characters]


def visible(text: str) -> str:
    """Return a text for the terminal: what would command it, or cannot be written, becomes an escape such as \\x1b."""
    return UNSHOWN.sub(lambda found: ascii(found.group())[1:-1], text)


def counted(number: int, thing: str) -> str:
    """Return `1 row` or `2,000 rows` for the thing `row`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def first_five(items: Iterable[object]) -> str:
    """Return the first five items and the number of the others: `a, b, c, d, e and 12 more`."""
    shown = [visible(str(item)) for item in items]
    more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
    return ", ".join(shown[:5]) + more


def nearest(wrong: str, known: Iterable[str]) -> str:
    """Return `did you mean 'x'?`, else the known names, of many only the five nearest."""
    names = sorted(known)
    same = {name.lower().replace("-", "_"): name for name in names}
    if close := get_close_matches(wrong.lower().replace("-", "_"), same, n=1, cutoff=0.5):
        return f"did you mean {same[close[0]]!r}?"
    if len(names) <= MAX_SHOWN_NAMES:
        return f"known: {', '.join(names)}"
    return f"nearest: {', '.join(get_close_matches(wrong, names, n=5, cutoff=0.0))}"
