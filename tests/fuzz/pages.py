"""The page of runs, one of whose files is altered: it is written, as HTML without a number that is none."""

import re
import shutil
from contextlib import chdir
from html.parser import HTMLParser
from pathlib import Path

from benchmarks.page_runs import write_sample_run
from fuzz.target import Target, file_target
from nexttoken.report.page.page_file import write_page
from support.composed import CONF
from support.finished_runs import unseal

SAMPLE = CONF.parent / "input" / "sample-preferences"
NO_NUMBER = re.compile(r"(?<![\w.])-?(nan|NaN|inf|Infinity)(?=[\s,;%\]}\"'<)]|px)")
SIZES = {
    "d",
    "x",
    "y",
    "x1",
    "x2",
    "y1",
    "y2",
    "cx",
    "cy",
    "r",
    "width",
    "height",
    "points",
    "transform",
    "style",
    "viewbox",
}
VOID = {"meta", "br", "input", "img", "link", "hr", "col", "wbr"}


def pages(folder: Path) -> Target:
    data = folder / "data"
    data.mkdir()
    lines = (SAMPLE / "train.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (data / "train.csv").write_text("".join(lines[:41]), encoding="utf-8")
    shutil.copy(SAMPLE / "test.csv", data)
    runs = folder / "lmsys"
    for name, skill in (("good", 1.6), ("poor", 0.8)):
        with chdir(CONF.parent):
            task = ("task=lmsys", f"input_dir={data}", "split.num_folds=2")
            write_sample_run(runs / name, *task, skill=skill, num_folds=2)
        for number in range(2):
            unseal(runs / name / f"fold{number}")
    fold = runs / "poor" / "fold1"
    files = [path for path in sorted(fold.iterdir()) if path.suffix in (".json", ".csv", ".yaml")]
    files += [runs / "poor" / "folds.csv", data / "train.csv"]

    def write(_: Path) -> None:
        out = folder / "page.html"
        write_page(runs, out, runs / "ledger.csv")
        check_page(out.read_text(encoding="utf-8"))

    return file_target([(path, write) for path in files])


class Tags(HTMLParser):
    """Counts the tags that are open, and keeps the text that is shown and the attributes of shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.numbers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.numbers += [
            f"{tag}.{key}={value}" for key, value in attrs if NO_NUMBER.search(f"{value} ") and "svg" in self.open
        ]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.numbers += [
            f"{tag}.{key}={value}" for key, value in attrs if key in SIZES and NO_NUMBER.search(f"{value} ")
        ]

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1:] == [tag], f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()


def check_page(html: str) -> None:
    """Raise AssertionError for tags that do not close, and for NaN where a shape has a number."""
    tags = Tags()
    tags.feed(html)
    tags.close()
    assert not tags.open, f"not closed: {tags.open}"
    assert not tags.numbers, f"no numbers: {tags.numbers[:3]}"
