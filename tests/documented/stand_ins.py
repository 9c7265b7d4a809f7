"""Small stand-ins for data, weights, packages and long trainings in a checkout of the documentation."""

import csv
import re
import shutil
import sys
from itertools import islice
from pathlib import Path

from conftest import CHAT_TEMPLATE, save_small_base
from nexttoken.data.files import read_json, write_json
from support.pages import ROOT
from support.training import write_sample

SMALL = Path(__file__).with_name("small.yaml")
# The samples that stand for data which a reader has downloaded, in the same format.
STAND_INS = {
    "lmsys-chatbot-arena": "sample-preferences",
    "other": "sample-preferences",
    "quiz": "sample-quiz",
    "instruct": "sample-instruct",
    "dialogues": "sample-dialogue",
    "my-marks": "sample-marks",
    "map": "sample-map",
    "map-charting-student-math-misunderstandings": "sample-map",
    "jigsaw-agile-community-rules": "sample-jigsaw-rules",
}
NUM_ROWS = (40, 400)  # of the test and the train table of real judgements


def make_inputs(inputs: Path, data: Path) -> None:
    """Copy the samples, under the names of the data for which they stand, too; the rest is linked from `data`."""
    inputs.mkdir()
    for path in sorted((ROOT / "input").glob("sample-*")):
        shutil.copytree(path, inputs / path.name)
    shutil.rmtree(inputs / "sample-preferences")
    write_sample(inputs / "sample-preferences")
    for name, sample in STAND_INS.items():
        shutil.copytree(inputs / sample, inputs / name)
    for name in ("jcommonsenseqa", "jmmlu"):
        (inputs / name).symlink_to(data / name)
    _write_table(inputs / "mine")


def link_shared(folder: Path, shared: Path) -> None:
    """Link the real data, and copy the first rows of the judgements that most pages use."""
    (folder / "data" / "arena-mini").mkdir(parents=True)
    for path in [*shared.iterdir(), *(shared / "data").iterdir()]:
        if path.name not in ("data", "arena-mini"):
            (folder / path.relative_to(shared)).symlink_to(path)
    for path in (shared / "data" / "arena-mini").iterdir():
        _copy_rows(path, folder / "data" / "arena-mini", NUM_ROWS["train" in path.name])


def _copy_rows(path: Path, folder: Path, number: int) -> None:
    """Copy the first rows of a table."""
    with path.open(newline="", encoding="utf-8") as whole, (folder / path.name).open("w", newline="") as part:
        csv.writer(part).writerows(islice(csv.reader(whole), number + 1))


def make_small(conf: Path) -> None:
    """Have trainings take few rows, and the grids and searches of conf/ two values or trials."""
    shutil.copy(SMALL, conf)
    train = conf / "train.yaml"
    train.write_text(train.read_text().replace("  - override hydra/", "  - small\n  - override hydra/", 1))
    for name, large, small in (
        ("model/smollm2", "max_tokens: 2048", "max_tokens: 256"),  # what the stand-in can take
        ("head/probe", "answer_tokens: 384", "answer_tokens: 96"),
    ):
        path = conf / f"{name}.yaml"
        assert large in path.read_text(), path
        path.write_text(path.read_text().replace(large, small))
    for path in [*conf.glob("sweep/*.yaml"), *conf.glob("experiment/*.yaml")]:
        text = re.sub(r"\btrials: \d+", "trials: 2", path.read_text())
        text = re.sub(r"folds: \[0, 1, [^]]*\]", "folds: [0, 1]", text)
        path.write_text(re.sub(r"(: )([^,\s\[({]+,[^,\s]+)(,[^,\s]+)+$", r"\1\2", text, flags=re.M))


def link_environment(folder: Path) -> None:
    """Have make find this Python's packages installed."""
    folder.mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (folder / name).symlink_to(Path(sys.prefix) / name)
    for installed in (".run", ".test"):
        (folder / installed).touch()


def save_small_model(folder: Path) -> None:
    """Save a small model with a chat template in the place of pretrained weights."""
    folder.parent.mkdir(parents=True)
    save_small_base(folder)
    settings = folder / "tokenizer_config.json"
    write_json(read_json(settings) | {"chat_template": CHAT_TEMPLATE}, settings)


def _write_table(folder: Path) -> None:
    """Write a small table of texts with two classes."""
    folder.mkdir()
    kinds = ("delivery", "refund")
    rows = [(n, f"title {n}", f"about my {kinds[n % 2]} of day {n * 7919 % 1000}", kinds[n % 2]) for n in range(90)]
    for name, part in (("train", rows[:60]), ("test", [row[:3] for row in rows[60:]])):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("row_id", "title", "text", "kind")[: len(part[0])], *part])
    with (folder / "sample_submission.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("row_id", "kind"), *((row[0], kinds[0]) for row in rows[60:])])
