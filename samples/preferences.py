"""Write train.csv (`rows` rows), test.csv, sample_submission.csv and truth.csv; the same seed gives the same bytes.

python -m samples.preferences [output_dir=input/sample-preferences] [seed=0] [rows=2000]

The competition is generated, in the format of Kaggle's LMSYS competition, with known true probabilities. Quality can be
read in the text: each turn of an answer begins with a remark on itself ("Vague answer: ..."). A remark is worth the
points of REMARK_POINTS, and an answer's quality is the mean over its remarks. A turn without a remark (null, or an
awkward text such as "NA") adds nothing; an answer without any remark has quality 0. Length, position and the statement
itself say nothing about quality.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nexttoken.commands.arguments import run
from samples import pick, sample_command, write_csv
from samples import preference_phrases as phrases

TIE_WEIGHT = 1.0  # Davidson's ν: equal answers tie with probability ν / (2 + ν)
NEAR_DUPLICATE_RATE = 0.1
NUM_TURNS_PROBS = (0.85, 0.12, 0.03)  # one, two, three turns
IDENTICAL_RATE = 0.04
NULL_RATE = 0.08  # of the turns after the first
AWKWARD_RATE = 0.01
CONSISTENCY = 0.8  # how often a turn repeats the remark of the turn before
MODEL_SPREAD = 0.3  # the strongest model makes a remark of p points 1 + 0.3 p times as often, the weakest 1 - 0.3 p


@dataclass(frozen=True, slots=True)
class Prompt:
    """A user's questions, turn by turn, and the statements that every model makes in reply."""

    turns: tuple[str, ...]
    statements: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's reply: one text per turn of the prompt (None where it gave none), and its quality in [-2, 2]."""

    turns: tuple[str | None, ...]
    quality: float


@dataclass(frozen=True, slots=True)
class Pair:
    """One row: two answers to a prompt, their models, and the true probabilities of (A wins, B wins, tie)."""

    id: int
    prompt: Prompt
    models: tuple[str, str]
    answers: tuple[Answer, Answer]

    @property
    def probs(self) -> tuple[float, float, float]:
        return true_probs(self.answers[0].quality, self.answers[1].quality)


def true_probs(quality_a: float, quality_b: float) -> tuple[float, float, float]:
    """Probabilities that A wins, B wins, or people see a tie: Davidson (1970, JASA 65:317), strength 4 ** quality."""
    strength_a, strength_b = 4.0**quality_a, 4.0**quality_b
    tie = TIE_WEIGHT * math.sqrt(strength_a * strength_b)
    total = strength_a + strength_b + tie
    return strength_a / total, strength_b / total, tie / total


def draw_pairs(num_pairs: int, rng: np.random.Generator) -> list[Pair]:
    """Rows with increasing ids below 2 ** 32, as Kaggle's; prompts come from a pool, so that many of them repeat."""
    pool = [draw_prompt(rng) for _ in range(max(1, num_pairs // 3))]
    ids = np.sort(rng.choice(2**32 // 1000, size=num_pairs, replace=False)) * 1000 + rng.integers(1000, size=num_pairs)
    return [draw_pair(int(row_id), pick(pool, rng), rng) for row_id in ids]


def draw_pair(row_id: int, prompt: Prompt, rng: np.random.Generator) -> Pair:
    """Two different models answer, in random order; now and then with the very same text."""
    if rng.random() < NEAR_DUPLICATE_RATE:
        prompt = reword(prompt, rng)
    first, second = (int(model) for model in rng.permutation(len(phrases.MODELS))[:2])
    answer = draw_answer(prompt, first, rng)
    other = answer if rng.random() < IDENTICAL_RATE else draw_answer(prompt, second, rng)
    return Pair(row_id, prompt, (phrases.MODELS[first], phrases.MODELS[second]), (answer, other))


def draw_prompt(rng: np.random.Generator) -> Prompt:
    """A situation and one to three questions about different topics."""
    num_turns = int(rng.choice((1, 2, 3), p=NUM_TURNS_PROBS))
    questions, statements = [], []
    for topic in rng.permutation(len(phrases.TOPICS))[:num_turns]:
        question, statement, values = phrases.TOPICS[topic]
        value = pick(values, rng)
        questions.append(question.format(*value))
        statements.append(statement.format(*value))
    return Prompt((f"{pick(phrases.SITUATIONS, rng)} {questions[0]}", *questions[1:]), tuple(statements))


def reword(prompt: Prompt, rng: np.random.Generator) -> Prompt:
    """The same prompt as another user would type it."""
    first = prompt.turns[0]
    first = pick((first.lower(), f"Hello! {first}", f"{first}?", first.replace(". ", ".\n")), rng)
    return Prompt((first, *prompt.turns[1:]), prompt.statements)


def draw_answer(prompt: Prompt, model: int, rng: np.random.Generator) -> Answer:
    """One model's reply; stronger models make better remarks more often, all models are equally long-winded."""
    turns: list[str | None] = []
    points, word = [], ""
    for index, statement in enumerate(prompt.statements):
        if index > 0 and rng.random() < NULL_RATE:
            turns.append(None)
        elif rng.random() < AWKWARD_RATE:
            turns.append(pick(phrases.AWKWARD_ANSWERS, rng))
        else:
            word = word if word and rng.random() < CONSISTENCY else draw_remark(model, rng)
            turns.append(write_turn(statement, word, rng))
            points.append(phrases.REMARK_POINTS[word])
    return Answer(tuple(turns), sum(points) / len(points) if points else 0.0)


def draw_remark(model: int, rng: np.random.Generator) -> str:
    """A remark's word; the chance of each rises or falls with its points by the model's strength in [-1, 1]."""
    strength = 2 * model / (len(phrases.MODELS) - 1) - 1
    words = list(phrases.REMARK_POINTS)
    weights = np.array([1 + MODEL_SPREAD * strength * points for points in phrases.REMARK_POINTS.values()])
    return words[int(rng.choice(len(words), p=weights / weights.sum()))]


def write_turn(statement: str, word: str, rng: np.random.Generator) -> str:
    """The remark, the statement, and an aside or nothing."""
    return f"{phrases.REMARK.format(word=word)} {statement} {pick(phrases.ASIDES, rng)}".rstrip()


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


def text_cells(pair: Pair) -> tuple[str, ...]:
    """Each text as a JSON list of turns in ASCII, emoji as escaped surrogate pairs, an absent turn as null."""
    texts = (pair.prompt, *pair.answers)
    return tuple(json.dumps(text.turns, separators=(",", ":")) for text in texts)


main = sample_command(write_sample, "input/sample-preferences", rows=(8, 2000, 100_000))

if __name__ == "__main__":
    run(main, __doc__)
