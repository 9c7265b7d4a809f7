"""The instruction sample's files: JSON lines in the plain format, and the truth of the test rows beside them."""

from dataclasses import asdict
from pathlib import Path

import numpy as np

from samples.instruct.generate import KINDS, draw_tasks
from samples.quiz.write import write_lines

TRAIN_PER_TEST = 20 / 3
MAX_ROWS = 500  # train rows; the kind with the fewest different rows, Japanese opposites, has 60 in all


def write_sample_instruct(folder: Path, seed: int, num_train: int) -> str:
    """Write train, test (without `output`) and truth JSON lines into `folder`; return one line that says what it is."""
    tasks = draw_tasks(num_train + round(num_train / TRAIN_PER_TEST), np.random.default_rng(seed))
    rows = [{"id": f"i{index:05}", **asdict(task)} for index, task in enumerate(tasks)]
    write_lines(folder / "train.jsonl", rows[:num_train])
    write_lines(folder / "test.jsonl", ({k: v for k, v in row.items() if k != "output"} for row in rows[num_train:]))
    truth = ({key: row[key] for key in ("id", "kind", "output")} for row in rows[num_train:])
    write_lines(folder / "truth.jsonl", truth)
    return f"{folder}: {num_train} train and {len(rows) - num_train} test rows of {len(KINDS)} kinds"
