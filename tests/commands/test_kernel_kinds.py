"""A kernel of each kind is built from a small run and rehearsed: as predict.py answers, without network.

`make test-kernel` rehearses every kind with the oldest and the newest versions, which are installed once.
"""

import json
import os
import re
from pathlib import Path

import pytest

from nexttoken import pipeline
from nexttoken.commands.kernel import main as kernel
from nexttoken.data.csv_tables import write_csv
from support.composed import config_of
from support.training import SAMPLE, TINY

SMALL = ["name=small", "fold=0", "logger=none", "max_tokens=200", "trainer.max_epochs=1", "split.num_folds=3",
         "model.scratch.vocab_size=400", "model.scratch.num_layers=1", "model.scratch.hidden_size=32"]  # fmt: skip
VERSIONS = os.environ.get("NEXTTOKEN_REHEARSED_VERSIONS", "").split()
COLOURS = ["red", "blue", "green", "white", "black"]


def write_lines(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_quiz(folder: Path) -> None:
    """Questions whose passages are recorded; those of the hidden rows are not."""
    questions = [f"Which colour has house {number}?" for number in range(36)]
    rows = [{"id": f"q{number:03}", "question": text, "options": COLOURS[: 2 + number % 4], "answer": number % 2}
            for number, text in enumerate(questions)]  # fmt: skip
    write_lines(folder / "train.jsonl", rows[:28])
    write_lines(folder / "test.jsonl", [row | {"answer": None} for row in rows[28:]])
    found = [{"query": text, "passages": [f"House {number} is {COLOURS[number % 2]}."]}
             for number, text in enumerate(questions)]  # fmt: skip
    write_lines(folder / "passages.jsonl", found)


def write_intents(folder: Path) -> None:
    """A table with 77 labels, as many as BANKING77 has."""
    rows = [[str(number), f"My request number {number} is about {number % 77}.", f"intent-{number % 77}"]
            for number in range(180)]  # fmt: skip
    write_csv([["row_id", "text", "category"], *rows[:160]], folder / "train.csv")
    write_csv([["row_id", "text"], *(row[:2] for row in rows[160:])], folder / "test.csv")


def write_instructions(folder: Path) -> None:
    rows = [
        {"id": f"i{number:03}", "instruction": f"Say {number}.", "output": f"It is {number}."} for number in range(48)
    ]
    write_lines(folder / "train.jsonl", rows[:40])
    write_lines(folder / "test.jsonl", [{key: row[key] for key in ("id", "instruction")} for row in rows[40:]])


TABLE = ["task=table", "task.name=intents", "task.id=row_id", "task.fields=[text]", "task.label=category",
         "task.metric='map_at(3)'", "task.submission={category: 'best(3)'}"]  # fmt: skip
TUNED = [f"input_dir={SAMPLE}", "name=tuned", "logger=none", "limit_rows=24", "max_tokens=256", "trainer.max_epochs=1",
         "model=smollm2_135m"]  # fmt: skip
KINDS = {  # files (None: the sample), the run's settings
    "preference": (None, TINY),
    "quiz": (write_quiz, [*SMALL, "task=quiz", "inference=retrieval", "retriever=recorded"]),
    "adapter": (None, [*TUNED, "adapter=lora"]),
    "table": (write_intents, [*SMALL, *TABLE]),
    "texts": (write_instructions, [*SMALL, "task=instruct", "generation.max_new_tokens=8"]),
}


@pytest.fixture(scope="module")
def kernels(base_dir, tmp_path_factory):
    """Kernel folders by kind, each made when it is asked for."""
    made: dict[str, Path] = {}

    def build(kind: str) -> Path:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            write, settings = KINDS[kind]
            places = [f"output_dir={folder / 'output'}"]
            places += [f"model.name_or_path={base_dir}"] if kind == "adapter" else []
            if write:
                (folder / "input").mkdir()
                write(folder / "input")
                places.append(f"input_dir={folder / 'input'}")
            pipeline.train(config_of("train", *settings, *places))
            run = next((folder / "output").glob("*/*/fold0")).parent
            device = "t4x2" if kind == "preference" else "cpu"
            kernel([f"run={run}", f"out={folder / 'kernel'}", "competition=me/files", f"device={device}"])
            made[kind] = folder / "kernel"
        return made[kind]

    return build


@pytest.mark.slow
def test_a_kernel_with_two_devices_answers_the_visible_rows_byte_for_byte_as_predict_py(kernels, capsys):
    kernel(["rehearse", str(kernels("preference")), "rows=40", "scale=100"])
    said = capsys.readouterr().out
    assert "all 40 visible rows equal those of predict.py, byte for byte" in said
    assert re.search(r"^forecast for t4x2 .*: \d+ s to \d+ s, of 9 hours$", said, re.M)


@pytest.mark.slow
@pytest.mark.usefixtures("user_cache")
@pytest.mark.timeout(900)
@pytest.mark.skipif(not VERSIONS, reason="make test-kernel rehearses every kind with two sets of versions")
@pytest.mark.parametrize("versions", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_kernel_of_every_kind_passes_with_the_oldest_and_the_newest_versions(
    kind, versions, kernels, user_cache, capsys
):
    kernel(["rehearse", str(kernels(kind)), "rows=120", f"versions={versions}", "scale=50"])
    assert "pass: " in capsys.readouterr().out
