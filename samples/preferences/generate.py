"""A generated competition with known true probabilities: answers say how good they are, labels are drawn from that.

Quality can be read in the text: each turn of an answer begins with a remark on itself ("Vague answer: ..."), a remark
is worth the points of `phrases.REMARK_POINTS`, and an answer's quality is the mean over its remarks. A turn without a
remark (null, or an awkward text such as "NA") adds nothing; an answer without any has quality 0. What an answer states,
how long it is and which side it stands on say nothing about its quality.
"""

import math
from dataclasses import dataclass

import numpy as np

from samples import pick
from samples.preferences import phrases

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
    """What a user asks, turn by turn, and what every model states in reply."""

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
    points = []
    word = ""
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
