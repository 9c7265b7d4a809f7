"""Generated dialogues: a philosopher opens with a question, and asks back after everything that he is told.

Each of his questions takes up the user's last words, so that an answer follows from the turn before it. Some dialogues
hold broken answers; their mark, 0 to 4, says how many.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from samples import pick
from samples.dialogue.phrases import ASSISTANT, BROKEN, OPENINGS, PEOPLE, QUALITIES, TOPICS, USER

NUM_ROUNDS = 12  # a question and what the user says to it
NUM_BROKEN = {0: 9, 1: 6, 2: 3, 3: 1, 4: 0}  # broken answers in a dialogue of each mark
MARKS = (4, 4, 3, 4, 2, 4, 3, 4, 1, 4, 3, 0)  # of dialogues one after the other


@dataclass(frozen=True, slots=True)
class Talk:
    """`utterances` are the philosopher's and the user's in turn, his first; `broken` are the places of broken ones."""

    person: str
    topic: str
    utterances: tuple[str, ...]
    broken: tuple[int, ...]
    mark: int


def draw_talk(mark: int, rng: np.random.Generator) -> Talk:
    """Return a dialogue of `NUM_ROUNDS` rounds and the philosopher's next question; no opening is broken."""
    person, topic = pick(PEOPLE, rng), pick(TOPICS, rng)
    answers = rng.permutation(NUM_ROUNDS - 1)[: NUM_BROKEN[mark]]
    broken = sorted(2 * int(answer) + 2 for answer in answers)
    words = {"p": person, "t": topic}
    utterances = [pick(OPENINGS, rng).format(**words)]
    for place in range(1, 2 * NUM_ROUNDS + 1):
        if place % 2:
            words["q"] = other_quality(words, rng)
        phrases = USER if place % 2 else BROKEN if place in broken else ASSISTANT
        utterances.append(pick(phrases, rng).format(**words))
    return Talk(person, topic, tuple(utterances), tuple(broken), mark)


def other_quality(words: Mapping[str, str], rng: np.random.Generator) -> str:
    """Nobody says the same thing twice in a row."""
    return pick([quality for quality in QUALITIES if quality != words.get("q")], rng)
