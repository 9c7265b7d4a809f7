"""The sample quiz's files: questions as JSON lines, a corpus with one file per genre, and the truth beside them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from samples import write_lines
from samples.quiz.generate import Quiz, draw_quizzes, draw_spare
from samples.quiz.words import GENRES

TRAIN_PER_TEST = 8


def write_sample_quiz(folder: Path, seed: int, num_train: int) -> str:
    """Write train, test, truth and corpus/<genre> JSON lines into `folder`; return one line that says what they hold.

    `truth.jsonl` gives the answer of every row, and the passage that it takes (null: none).
    """
    rng = np.random.default_rng(seed)
    quizzes = draw_quizzes(num_train + num_train // TRAIN_PER_TEST, rng)
    rows = {f"q{index:05}": quiz for index, quiz in enumerate(quizzes)}
    facts = [quiz for quiz in [*quizzes, *draw_spare(quizzes, rng)] if quiz.passage]
    passages = {f"p{number:05}": facts[index] for number, index in enumerate(rng.permutation(len(facts)))}
    passage_ids = {fact.passage: passage_id for passage_id, fact in passages.items()}

    test = set(sorted(rows)[num_train:])
    write_lines(folder / "train.jsonl", (line(row_id, quiz) for row_id, quiz in rows.items() if row_id not in test))
    hidden = (line(row_id, quiz) | {"answer": None} for row_id, quiz in rows.items() if row_id in test)
    write_lines(folder / "test.jsonl", hidden)
    truth = ({"id": i, "answer": quiz.answer, "passage": passage_ids.get(quiz.passage)} for i, quiz in rows.items())
    write_lines(folder / "truth.jsonl", truth)
    for genre in GENRES:
        own = ({"id": i, "text": fact.passage} for i, fact in passages.items() if fact.genre == genre)
        write_lines(folder / "corpus" / f"{genre}.jsonl", own)
    return summary(folder, quizzes, num_train, len(passages))


def line(row_id: str, quiz: Quiz) -> dict[str, object]:
    options = list(quiz.options)
    return {"id": row_id, "genre": quiz.genre, "question": quiz.question, "options": options, "answer": quiz.answer}


def summary(folder: Path, quizzes: Sequence[Quiz], num_train: int, num_passages: int) -> str:
    chance = np.mean([1 / len(quiz.options) for quiz in quizzes[:num_train]])
    told = np.mean([quiz.passage is not None for quiz in quizzes[:num_train]])
    return (
        f"{folder}: {num_train} train and {len(quizzes) - num_train} test rows, {num_passages} passages;"
        f" {told:.1%} of the train rows need theirs, chance is {chance:.1%}"
    )
