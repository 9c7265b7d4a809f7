"""A finding of the doctor: what was found, and the fix where something is amiss."""

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

COLUMNS = 100
INDENT = " " * 16


@dataclass(frozen=True)
class Finding:
    """`fix` is the mend in one line, "" where nothing is amiss; `breaks` is True where nothing runs without it."""

    topic: str
    text: str
    fix: str = ""
    breaks: bool = False

    def lines(self) -> Iterator[str]:
        """The finding in lines of at most 100 columns: ok, note or bad, the topic, the text, and the fix below."""
        mark = "bad" if self.breaks else "note" if self.fix else "ok"
        yield from _wrapped(f"{mark:<5}{self.topic:<10} {self.text}")
        if self.fix:
            yield from _wrapped(f"{INDENT}fix: {self.fix}")


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, COLUMNS, subsequent_indent=INDENT, break_long_words=False, break_on_hyphens=False)
