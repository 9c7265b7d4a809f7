"""The commands of the pages: as they are written, and as they are run."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from support.pages import PAGES, indented, name

BEGIN = re.compile(r"([A-Z_]+=\S+ +)*(python|make|torchrun|srun|eval|pip|\.venv-vllm/bin/\w+) ")
VARIABLE = re.compile(r'[a-z]+="[^"]*"')  # of the commands below it on the page
RUN = re.compile(r"output/(\w+)/<([\w ]+)>")
NAMES = {"name": "trained", "run name": "trained", "a": "trained", "small": "trained", "b": "other", "large": "other"}

# How placeholders are filled; the names of runs come last.
FILLED = (
    (r"id=<user>/[\w<>-]+", "id=someone/a-kernel"),
    (r"output/<task>/<name>", "output/lmsys/<name>"),
    (r"python -m nexttoken <command>", "python -m nexttoken report"),
    (r"(out=output/lmsys/)<name>", r"\1new"),  # a folder that is not there yet
    (r"(name|task)=<name>", r"\1=mine"),
    (r"(new name=mine input_dir=)input/<folder>", r"\1input/mine"),
    (r"input/<folder>|/data/arena", "input/sample-preferences"),
    (r"(submissions/)<name>", r"\1answers"),
    (r"output/lmsys/<name>_seed-0", "output/lmsys/a"),  # whose settings these were before on the page
    (r"asked/<way>", "asked/$(ls output/lmsys/trained/asked | grep ^Swap)"),
    (r"((?:merge run=|average )output/lmsys/)<name>", r"\1a"),  # which has an adapter
    (r"average output/lmsys/<a> output/lmsys/<b>", "average output/lmsys/a output/lmsys/a_seed-1"),
    (r"compare output/lmsys by=", "compare output/compared/lmsys by="),  # of runs that differ in it alone
)
WHOLE = ("docs/teachers.md", "docs/ladder.md")  # a student needs its teacher's answers to the rows of all folds
# Lists of a grid and numbers of trials, rows and repetitions that say how long a command takes, and nothing else.
LIST = re.compile(r"(?<= )([\w.]+=)([^,\s\[({'\"]+,[^,\s]+)(?:,[^,\s]+)+")
SHORTENED = (
    (r"\b(sweep\.trials)=\d+", r"\1=2"),
    (r"\blimit_rows=\d{3}\b", "limit_rows=80"),
    (r"\btrainer\.max_epochs=[2-9]\b", "trainer.max_epochs=1"),
    (r"(kernel rehearse \S+ rows)=\d+", r"\1=50"),
    (r"\b(times|kills)=\d+", r"\1=1"),
    (r"(benchmarks\.deadline .*) rows=\d+", r"\1 rows=100"),
    (r"(benchmarks\.curation_noise .*)", r"\1 rows=400"),
    (r"(samples\.preferences .*) rows=\d+", r"\1 rows=400"),
)


@dataclass(frozen=True)
class Command:
    """A line of code of a page, continued lines included; `variables` are the assignments above it."""

    page: str
    text: str
    variables: str = ""

    def __str__(self) -> str:
        return f"{self.page}: {self.text}"

    @property
    def typed(self) -> str:
        """The command with runs for its placeholders, at most two values a key of a grid, and few rows."""
        text = self.text
        for pattern, by in FILLED:
            text = re.sub(pattern, by, text)
        for pattern, by in SHORTENED:
            text = re.sub(pattern, by, text)
        text = RUN.sub(lambda found: f"output/{found[1]}/{NAMES[found[2]]}", text)
        return shortest(text) if ".py -m " in text and self.page not in WHOLE else text


def shortest(text: str) -> str:
    """A text with at most two values in each list of a grid."""
    return LIST.sub(r"\1\2", text)


def commands() -> Iterator[Command]:
    """The commands of all pages, in their order on each page."""
    for page in PAGES:
        variables = ""
        for line in indented(page.read_text(encoding="utf-8")):
            text = re.sub(r"\s+#.*", "", re.sub(r" {2,}", " ", line.strip()))
            if VARIABLE.fullmatch(text):
                variables = shortest(text)
            elif BEGIN.match(f"{text} "):
                yield Command(name(page), text, variables)
