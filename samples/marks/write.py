"""The sample marks' files: marked answers as JSON lines, and beside them what the marks were drawn from."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from nexttoken.data.files import whole_file
from samples.marks.generate import RUBRIC, Answer, draw_answers

TRAIN_PER_TEST = 10  # instructions


def write_sample_marks(folder: Path, seed: int, num_instructions: int) -> str:
    """Write train, test and truth JSON lines into `folder`; return one line that says what they hold."""
    groups = draw_answers(num_instructions + num_instructions // TRAIN_PER_TEST, np.random.default_rng(seed))
    rows = {f"m{index:05}": answer for index, answer in enumerate(answer for group in groups for answer in group)}
    num_train = sum(map(len, groups[:num_instructions]))
    train, test = list(rows.items())[:num_train], list(rows.items())[num_train:]
    write_lines(folder / "train.jsonl", (line(row_id, answer) | {"mark": answer.mark} for row_id, answer in train))
    write_lines(folder / "test.jsonl", (line(row_id, answer) for row_id, answer in test))
    truth = ({"id": i, "probs": answer.probs, "mark": answer.mark} for i, answer in rows.items())
    write_lines(folder / "truth.jsonl", truth)
    return f"{folder}: {len(train)} train and {len(test)} test answers to {len(groups)} instructions"


def line(row_id: str, answer: Answer) -> dict[str, object]:
    texts = {"instruction": answer.instruction, "response": answer.response, "reference": answer.reference}
    return {"id": row_id, **texts, "rubric": RUBRIC}


def write_lines(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    with whole_file(path) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
