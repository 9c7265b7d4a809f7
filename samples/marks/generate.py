"""Generated answers with known marks: each instruction asks for three words of a kind, and some answers name tools.

A faultless answer gets 4, and loses a mark for every tool, which nobody asks for; an empty one, or one in another
language, gets 0. The person who marks is one off now and then, so that the best log loss that a judge can reach is
known and is not zero. The reference names other words than most answers do: comparing the two is not enough.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np

KINDS = {
    "fruits": ("apple", "pear", "plum", "cherry", "peach", "lemon"),
    "animals": ("horse", "sheep", "goat", "mouse", "tiger", "rabbit"),
    "colours": ("red", "blue", "green", "yellow", "purple", "brown"),
}
TOOLS = ("hammer", "saw", "drill", "axe", "spade", "rake", "wrench", "file", "pliers", "chisel")
OTHER_LANGUAGE = ("りんご", "うま", "あか", "のこぎり", "くつした", "ふえ", "みかん", "いぬ", "あお", "かなづち")
ASKED = ("{name} wants three {kind}. Name them.", "Name three {kind} for {name}.", "Which three {kind} may {name} get?")
NAME_PARTS = (("Al", "Be", "Co", "Da", "El", "Fi", "Ga", "Ho", "Jo", "Ka"), ("bo", "da", "li", "mar", "no", "ra", "ti"),
              ("", "la", "na", "s", "ro", "x", "ni", "to"))  # fmt: skip
RUBRIC = "One mark less for every tool. 0 for nothing, and for another language."
HIGHEST = 4
NUM_WORDS = 3
OFF_BY_ONE = 0.1  # how often the mark is a neighbour of the deserved one
MAX_INSTRUCTIONS = len(NAME_PARTS[0]) * len(NAME_PARTS[1]) * len(NAME_PARTS[2])


@dataclass(frozen=True, slots=True)
class Answer:
    """One marked answer; `probs` are those that its mark was drawn from."""

    instruction: str
    reference: str
    response: str
    mark: int
    probs: tuple[float, ...]


def draw_answers(num_instructions: int, rng: np.random.Generator) -> list[list[Answer]]:
    """Five answers to each instruction, one for every deserved mark, in random order; no name comes twice."""
    names = ["".join(parts) for parts in product(*NAME_PARTS)]
    order = rng.permutation(len(names))[:num_instructions]
    return [_answers(names[index], list(KINDS)[place % len(KINDS)], rng) for place, index in enumerate(order)]


def _answers(name: str, kind: str, rng: np.random.Generator) -> list[Answer]:
    instruction = _pick(ASKED, rng).format(name=name, kind=kind)
    reference = _listed(_some(KINDS[kind], NUM_WORDS, rng))
    answers = []
    for deserved in rng.permutation(HIGHEST + 1).tolist():
        probs = mark_probs(deserved)
        mark = int(rng.choice(HIGHEST + 1, p=probs))
        answers.append(Answer(instruction, reference, _response(kind, deserved, rng), mark, probs))
    return answers


def _response(kind: str, deserved: int, rng: np.random.Generator) -> str:
    if deserved == 0:
        return "" if rng.random() < 0.3 else "、".join(_some(OTHER_LANGUAGE, NUM_WORDS, rng)) + "。"
    num_wrong = HIGHEST - deserved
    words = [*_some(KINDS[kind], NUM_WORDS - num_wrong, rng), *_some(TOOLS, num_wrong, rng)]
    return _listed([words[index] for index in rng.permutation(NUM_WORDS)])


def mark_probs(deserved: int) -> tuple[float, ...]:
    """Probabilities of the marks 0 to 4: mostly the deserved one, else one of its neighbours."""
    probs = np.zeros(HIGHEST + 1)
    neighbours = [mark for mark in (deserved - 1, deserved + 1) if 0 <= mark <= HIGHEST]
    probs[deserved], probs[neighbours] = 1 - OFF_BY_ONE, OFF_BY_ONE / len(neighbours)
    return tuple(probs.tolist())


def _listed(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}."


def _some(items: list[str] | tuple[str, ...], number: int, rng: np.random.Generator) -> list[str]:
    return [items[index] for index in rng.permutation(len(items))[:number].tolist()]


def _pick(items: tuple[str, ...], rng: np.random.Generator) -> str:
    return items[int(rng.integers(len(items)))]
