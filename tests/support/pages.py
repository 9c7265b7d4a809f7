"""The pages of the documentation, and the code that stands in them."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / folder / "README.md" for folder in ("benchmarks", "input", "output", "submissions")),
    ]
)
PLACEHOLDER = re.compile(r"<[^>]*>|\$\(.*\)|\.\.\.|…")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def indented(text: str) -> list[str]:
    """The indented lines of a page, each with the lines that it goes over to with a backslash."""
    return [line for line in _joined(text).splitlines() if line.startswith("    ")]


def pieces(text: str) -> list[str]:
    """The code of a page: its indented lines, and what stands in backticks, which may go over a line's end.

    NAME takes the place of `<name>` and other placeholders.
    """
    prose = "\n".join(line for line in _joined(text).splitlines() if not line.startswith("    "))
    spans = [span for part in re.split(r"\n\n|\|\n", prose) for span in re.findall(r"`([^`]+)`", part)]
    return [PLACEHOLDER.sub("NAME", code) for code in indented(text) + [re.sub(r"\s+", " ", span) for span in spans]]


def _joined(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text.replace("\\\n", " "), flags=re.M | re.S)
