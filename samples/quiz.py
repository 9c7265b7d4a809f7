"""Write train.jsonl (`rows` rows), test.jsonl, truth.jsonl and corpus/*.jsonl; the same seed gives the same bytes.

python -m samples.quiz [output_dir=input/sample-quiz] [seed=0] [rows=2600]

The quiz is generated. Some questions can be answered by anybody; the others ask for facts that only one passage tells.
Every question has an invented name that no other question has. No two rows ask for the same fact, so learning all other
rows does not answer the one that is left. The name does not matter where a question asks for any word of a kind. Every
option is one common word, so that a small model has few words to learn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from nexttoken.commands.arguments import run
from samples import pick, sample_command, some, words, write_lines

# Invented names are one part of each: no two are the same word, and none is English.
NAME_PARTS = (
    ("Ba", "Do", "Fe", "Gu", "Ha", "Ki", "Lu", "Mo", "Na", "Pe", "Qua", "Ri", "Su", "Ta", "Ve", "Wi", "Yo", "Za"),
    ("bri", "dro", "fla", "gro", "kla", "lme", "mpo", "nvi", "rdu", "ske", "tru", "vra", "xo", "zzi"),
    ("bel", "dan", "fur", "gos", "kin", "lix", "mar", "nok", "pas", "rov", "sum", "tek", "vin", "wex", "zor"),
)

# The wrong options where a kind of word is asked for. No genre asks for tools: a small model learns that first, and
# with it how an option leads to its label, which is what it then needs to use a passage.
TOOLS = words("""
spoon ladder hammer basket candle pillow bucket carpet needle kettle ribbon saddle
""")


# The facts in the passages: one kind of word in all genres, so that a small model meets each word often.
COLOURS = ("red", "green", "blue", "yellow", "white", "black")
TOLD_QUESTION = "Which colour is the {thing} of {name}?"
TOLD_PASSAGE = "The {thing} of {name} is {colour}."

KNOWN_QUESTION = "{name} looks for {kind}. Which one?"


@dataclass(frozen=True, slots=True)
class Genre:
    """A kind of word that questions ask for, words of that kind, and things whose colour only a passage tells."""

    kind: str
    words: tuple[str, ...]
    things: tuple[str, ...]


MUSIC_THINGS = words("bell stage banner")
GENRES = {
    "animals": Genre("an animal", words("otter robin shark horse goat wolf eagle trout"), words("cat pony parrot")),
    "cities": Genre("a city", words("Paris Tokyo Oslo Lima Rome Madrid Cairo Athens"), words("hotel tram gate")),
    "clothes": Genre("a garment", words("coat scarf glove shirt skirt sock jacket vest"), words("hat belt boot")),
    "fruits": Genre("a fruit", words("apple pear plum cherry grape lemon peach melon"), words("garden jar fence")),
    "music": Genre("an instrument", words("piano violin flute drum harp cello trumpet guitar"), MUSIC_THINGS),
}


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
        lines = ({"id": i, "text": fact.passage} for i, fact in passages.items() if fact.genre == genre)
        write_lines(folder / "corpus" / f"{genre}.jsonl", lines)
    chance = np.mean([1 / len(quiz.options) for quiz in quizzes[:num_train]])
    told = np.mean([quiz.passage is not None for quiz in quizzes[:num_train]])
    counts = f"{num_train} train and {len(test)} test rows, {len(passages)} passages"
    return f"{folder}: {counts}; {told:.1%} of the train rows need theirs, chance is {chance:.1%}"


def line(row_id: str, quiz: Quiz) -> dict[str, object]:
    options = list(quiz.options)
    return {"id": row_id, "genre": quiz.genre, "question": quiz.question, "options": options, "answer": quiz.answer}


main = sample_command(write_sample_quiz, "input/sample-quiz", rows=(40, 2600, MAX_ROWS))

if __name__ == "__main__":
    run(main, __doc__)
