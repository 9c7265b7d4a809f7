"""A generated quiz: some questions anybody can answer, the others ask for facts that only one passage tells.

Every question names somebody invented, whom no other question names: no two rows ask for the same fact, so whoever has
learnt all rows but one still cannot know the one that is left. Who asks for any word of a kind does not matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from samples import pick, some
from samples.quiz.words import COLOURS, GENRES, KNOWN_QUESTION, NAME_PARTS, TOLD_PASSAGE, TOLD_QUESTION, TOOLS

TOLD_SHARE = 0.47  # of the questions of every genre
MAX_OPTIONS = 5
SPARE_RATE = 0.25  # passages about names that no question asks for, per fact that one does
NUM_NAMES = int(np.prod([len(parts) for parts in NAME_PARTS]))
MAX_ROWS = int(NUM_NAMES / (1 + TOLD_SHARE * SPARE_RATE) / 1.2)  # train rows; a fifth more are test rows


@dataclass(frozen=True, slots=True)
class Quiz:
    """One question; `answer` indexes its options."""

    genre: str
    question: str
    options: tuple[str, ...]
    answer: int
    passage: str | None = None  # the text that answers it; None: common knowledge does


def draw_quizzes(num_rows: int, rng: np.random.Generator) -> list[Quiz]:
    """Questions in random order; genres are equally frequent, and `TOLD_SHARE` of each need their passage."""
    names, genres = draw_names(rng), list(GENRES)
    quizzes = []
    for index in range(num_rows):
        turn, genre = divmod(index, len(genres))
        needs_passage = int((turn + 1) * TOLD_SHARE) > int(turn * TOLD_SHARE)
        quizzes.append((draw_told if needs_passage else draw_known)(genres[genre], names[index], rng))
    return [quizzes[index] for index in rng.permutation(num_rows)]


def draw_spare(quizzes: Sequence[Quiz], rng: np.random.Generator) -> list[Quiz]:
    """Facts of other names that nobody is asked for."""
    asked = {word.strip("?.,") for quiz in quizzes for word in quiz.question.split()}
    names = [name for name in draw_names(rng) if name not in asked]
    num_spare = round(SPARE_RATE * sum(quiz.passage is not None for quiz in quizzes))
    return [draw_told(pick(list(GENRES), rng), name, rng) for name in names[:num_spare]]


def draw_names(rng: np.random.Generator) -> list[str]:
    """All names there are, in random order."""
    return some(["".join(parts) for parts in product(*NAME_PARTS)], NUM_NAMES, rng)


def draw_known(genre: str, name: str, rng: np.random.Generator) -> Quiz:
    """A question for a kind of word: one option is of that kind, the others are tools."""
    wrong = [str(tool) for tool in rng.permutation(TOOLS)[: int(rng.integers(1, MAX_OPTIONS))]]
    options, answer = shuffle(pick(GENRES[genre].words, rng), wrong, rng)
    return Quiz(genre, KNOWN_QUESTION.format(name=name, kind=GENRES[genre].kind), options, answer)


def draw_told(genre: str, name: str, rng: np.random.Generator) -> Quiz:
    """A question for a colour: every option could be it."""
    thing = pick(GENRES[genre].things, rng)
    right, *wrong = (str(colour) for colour in rng.permutation(COLOURS)[: 1 + int(rng.integers(1, MAX_OPTIONS))])
    options, answer = shuffle(right, wrong, rng)
    passage = TOLD_PASSAGE.format(thing=thing, name=name, colour=right)
    return Quiz(genre, TOLD_QUESTION.format(thing=thing, name=name), options, answer, passage)


def shuffle(right: str, wrong: Sequence[str], rng: np.random.Generator) -> tuple[tuple[str, ...], int]:
    """The options in random order, and where the right one stands."""
    options = [right, *wrong]
    order = [int(index) for index in rng.permutation(len(options))]
    return tuple(options[index] for index in order), order.index(0)
