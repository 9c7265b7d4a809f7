"""Write train.jsonl (five answers to each instruction), test.jsonl (a tenth as many) and truth.jsonl.

The same seed gives the same bytes.

python -m samples.marks [output_dir=input/sample-marks] [seed=0] [instructions=400]

The answers are generated to train a judge on. Each instruction asks for three words of a kind; some answers name tools.
A faultless answer gets 4 and loses one mark for every tool, because nobody asks for tools. An empty answer, or one in
another language, gets 0. One mark in ten is off by one, so the best log loss that a judge can reach is known and is not
zero. The reference names other words than most answers do, so comparing an answer with it is not enough.
"""

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from nexttoken.commands.arguments import run
from samples import pick, sample_command, some, write_lines

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
TRAIN_PER_TEST = 10  # instructions
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


def write_sample_marks(folder: Path, seed: int, num_instructions: int) -> str:
    """Write train, test and truth JSON lines into `folder`; return one line that says what they hold."""
    groups = draw_answers(num_instructions + num_instructions // TRAIN_PER_TEST, np.random.default_rng(seed))
    rows = {f"m{index:05}": answer for index, answer in enumerate(answer for group in groups for answer in group)}
    num_train = sum(map(len, groups[:num_instructions]))
    train, test = list(rows.items())[:num_train], list(rows.items())[num_train:]
    write_lines(folder / "train.jsonl", (line(row_id, answer) | {"mark": answer.mark} for row_id, answer in train))
    write_lines(folder / "test.jsonl", (line(row_id, answer) for row_id, answer in test))
    truth = ({"id": i, "probs": answer.probs, "mark": answer.mark} for i, answer in rows.items())
    write_lines(folder / "truth.jsonl", truth)
    return f"{folder}: {len(train)} train and {len(test)} test answers to {len(groups)} instructions"


def line(row_id: str, answer: Answer) -> dict[str, object]:
    texts = {"instruction": answer.instruction, "response": answer.response, "reference": answer.reference}
    return {"id": row_id, **texts, "rubric": RUBRIC}


def draw_answers(num_instructions: int, rng: np.random.Generator) -> list[list[Answer]]:
    """Five answers to each instruction, one for every deserved mark, in random order; no name comes twice."""
    names = ["".join(parts) for parts in product(*NAME_PARTS)]
    chosen = some(names, num_instructions, rng)
    return [_answers(name, list(KINDS)[place % len(KINDS)], rng) for place, name in enumerate(chosen)]


def _answers(name: str, kind: str, rng: np.random.Generator) -> list[Answer]:
    instruction = pick(ASKED, rng).format(name=name, kind=kind)
    reference = _listed(some(KINDS[kind], NUM_WORDS, rng))
    answers = []
    for deserved in rng.permutation(HIGHEST + 1).tolist():
        probs = mark_probs(deserved)
        mark = int(rng.choice(HIGHEST + 1, p=probs))
        answers.append(Answer(instruction, reference, _response(kind, deserved, rng), mark, probs))
    return answers


def _response(kind: str, deserved: int, rng: np.random.Generator) -> str:
    if deserved == 0:
        return "" if rng.random() < 0.3 else "、".join(some(OTHER_LANGUAGE, NUM_WORDS, rng)) + "。"
    num_wrong = HIGHEST - deserved
    words = [*some(KINDS[kind], NUM_WORDS - num_wrong, rng), *some(TOOLS, num_wrong, rng)]
    return _listed(some(words, NUM_WORDS, rng))


def mark_probs(deserved: int) -> tuple[float, ...]:
    """Probabilities of the marks 0 to 4: mostly the deserved one, else one of its neighbours."""
    probs = np.zeros(HIGHEST + 1)
    neighbours = [mark for mark in (deserved - 1, deserved + 1) if 0 <= mark <= HIGHEST]
    probs[deserved], probs[neighbours] = 1 - OFF_BY_ONE, OFF_BY_ONE / len(neighbours)
    return tuple(probs.tolist())


def _listed(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}."


main = sample_command(write_sample_marks, "input/sample-marks", instructions=(10, 400, MAX_INSTRUCTIONS))

if __name__ == "__main__":
    run(main, __doc__)
