"""The sample competition's files, in the exact format of Kaggle's LMSYS competition, and the truth beside them."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from nexttoken.data.files import whole_file
from samples.preferences.generate import Pair, draw_pairs

TEXTS = ("prompt", "response_a", "response_b")
WINNERS = ("winner_model_a", "winner_model_b", "winner_tie")
TRAIN_PER_TEST = 8


def write_sample(folder: Path, seed: int, num_train: int) -> str:
    """Write train, test, sample_submission and truth CSVs into `folder`; return one line that says what they hold."""
    rng = np.random.default_rng(seed)
    pairs = draw_pairs(num_train + num_train // TRAIN_PER_TEST, rng)
    labels = [int(rng.choice(3, p=pair.probs)) for pair in pairs]
    order = rng.permutation(len(pairs))
    train, test = np.sort(order[:num_train]), np.sort(order[num_train:])

    train_rows = [train_row(pairs[index], labels[index]) for index in train]
    write_csv(folder / "train.csv", ("id", "model_a", "model_b", *TEXTS, *WINNERS), train_rows)
    write_csv(folder / "test.csv", ("id", *TEXTS), [(pairs[index].id, *text_cells(pairs[index])) for index in test])
    write_csv(folder / "sample_submission.csv", ("id", *WINNERS), [(pairs[index].id, *[1 / 3] * 3) for index in test])
    write_csv(folder / "truth.csv", ("id", *WINNERS), [(pair.id, *pair.probs) for pair in pairs])
    best = -np.mean([np.log(pairs[index].probs[labels[index]]) for index in train])
    return f"{folder}: {len(train)} train and {len(test)} test rows, best possible log loss on train {best:.4f}"


def train_row(pair: Pair, label: int) -> tuple[object, ...]:
    return (pair.id, *pair.models, *text_cells(pair), *(int(label == index) for index in range(len(WINNERS))))


def text_cells(pair: Pair) -> tuple[str, str, str]:
    """Each text as a JSON list of turns in ASCII, emoji as escaped surrogate pairs, an absent turn as null."""
    prompt, response_a, response_b = (
        json.dumps(turns, separators=(",", ":"))
        for turns in (pair.prompt.turns, pair.answers[0].turns, pair.answers[1].turns)
    )
    return prompt, response_a, response_b


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with whole_file(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
