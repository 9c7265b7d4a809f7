"""The dialogue sample's files: dialogues as JSON lines, and beside them the marks and answers that they do not tell."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from samples import write_lines
from samples.dialogue.generate import MARKS, NUM_ROUNDS, Talk, draw_talk

TRAIN_PER_TEST = 6
MARKED_OF_THREE = 2  # two of three training dialogues say their mark

SPEAKERS = ("assistant", "user")  # in turn


def write_sample_dialogue(folder: Path, seed: int, num_train: int) -> str:
    """Write train, test and truth JSON lines into `folder`; return one line that says what they hold.

    A training dialogue ends with the user after `NUM_ROUNDS` rounds, a test dialogue anywhere before, with the user,
    too. `truth.jsonl` gives every mark and the places of broken turns, and for test rows the answer.
    """
    rng = np.random.default_rng(seed)
    train = [draw_talk(MARKS[index % len(MARKS)], rng) for index in range(num_train)]
    train = [train[index] for index in rng.permutation(num_train)]
    test = [draw_talk(max(MARKS), rng) for _ in range(num_train // TRAIN_PER_TEST)]
    ends = [2 * int(rng.integers(1, NUM_ROUNDS)) for _ in test]

    rows = [row(number, talk, 2 * NUM_ROUNDS) for number, talk in enumerate(train)]
    asked = [row(number, talk, end) for number, (talk, end) in enumerate(zip(test, ends, strict=True), num_train)]
    marked = [number for number in range(num_train) if number % 3 < MARKED_OF_THREE]
    told = [{**rows[n], "mark": train[n].mark} if n in marked else rows[n] for n in range(num_train)]
    write_lines(folder / "train.jsonl", told)
    write_lines(folder / "test.jsonl", asked)
    write_lines(folder / "truth.jsonl", truth([*rows, *asked], [*train, *test]))
    return f"{folder}: {num_train} train and {len(asked)} test dialogues; {len(marked)} tell their mark"


def row(number: int, talk: Talk, end: int) -> dict[str, Any]:
    """The dialogue's first `end` turns."""
    turns = [{"speaker": SPEAKERS[place % 2], "utterance": text} for place, text in enumerate(talk.utterances[:end])]
    return {"dialogue_id": f"d{number:05}", "persona": talk.person, "turns": turns}


def truth(rows: Sequence[dict[str, Any]], talks: Sequence[Talk]) -> list[dict[str, Any]]:
    known = []
    for asked, talk in zip(rows, talks, strict=True):
        own = {"dialogue_id": asked["dialogue_id"], "mark": talk.mark, "broken": list(talk.broken)}
        end = len(asked["turns"])
        known.append(own | {"output": talk.utterances[end]} if end < 2 * NUM_ROUNDS else own)
    return known
