"""Write train.csv (`rows` rows), test.csv, sample_submission.csv and truth.csv; the same seed gives the same bytes.

python -m samples.map [output_dir=input/sample-map] [seed=0] [rows=850]

The competition is generated, in the files of Kaggle's "MAP - Charting Student Math Misunderstandings", with known true
probabilities. A student explains a chosen answer; the explanation tells whether it is understood, and each question has
misconceptions of its own. Annotators take one explanation in eight for something else. Nothing but the answer and the
explanation decides, and no misconception stands with two questions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nexttoken.commands.arguments import run
from samples import pick, sample_command, write_csv


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its right answer, explanations of it, and wrong answers by the misconception that leads there.

    A misconception is a name, the answer that students with it choose, and their explanations.
    """

    id: int
    text: str
    right: str
    explanations: tuple[str, ...]
    misconceptions: Mapping[str, tuple[str, tuple[str, ...]]]

    @property
    def answers(self) -> tuple[str, ...]:
        return (self.right, *dict.fromkeys(answer for answer, _ in self.misconceptions.values()))


QUESTIONS = (
    Question(
        31772,
        r"Add \( \frac{1}{3} + \frac{1}{4} \)",
        r"\( \frac{7}{12} \)",
        ("twelve is the common denominator", "4 twelfths and 3 twelfths", "make both of them twelfths"),
        {
            "Adds_across": (r"\( \frac{2}{7} \)", ("1 + 1 on top and 3 + 4 below", "add tops and add bottoms")),
            "Keeps_larger": (r"\( \frac{2}{4} \)", ("keep the larger bottom", "four is bigger so it stays")),
            "Multiplies": (r"\( \frac{1}{12} \)", ("3 times 4 makes 12", "multiply the two of them")),
        },
    ),
    Question(
        31774,
        r"Which number is the largest? \( 0.6, 0.43, 0.298 \)",
        r"\( 0.6 \)",
        ("6 tenths are the most tenths", "compare the tenths first", "it is the same as 0.600"),
        {
            "Longer_is_larger": (r"\( 0.298 \)", ("it has the most digits", "298 is more than 43")),
            "Shorter_is_smaller": (r"\( 0.43 \)", ("hundredths beat tenths", "two digits are better than one")),
        },
    ),
    Question(
        32829,
        r"What is \( 3 + 4 \times 2 \)?",
        r"\( 11 \)",
        ("times goes before plus", "4 times 2 is 8 and 3 more", "multiply first by bidmas"),
        {
            "Left_to_right": (r"\( 14 \)", ("3 and 4 is 7 and double it", "go from left to right")),
            "Only_adds": (r"\( 9 \)", ("3 and 4 and 2 together", "add up all the numbers")),
        },
    ),
    Question(
        32833,
        r"A coin fell on heads 3 times. How likely is heads now?",
        r"\( \frac{1}{2} \)",
        ("the coin does not remember", "every throw is fifty fifty", "there are two equal sides"),
        {
            "Tails_is_due": ("Less than half", ("tails is due by now", "heads cannot go on forever")),
            "Streak_goes_on": ("More than half", ("heads is on a lucky streak", "it likes heads today")),
        },
    ),
    Question(
        33471,
        r"Simplify \( 2x + 3 + 4x \)",
        r"\( 6x + 3 \)",
        ("2x and 4x are like terms", "only the x go together", "three has no x so leave it"),
        {
            "Joins_unlike": (r"\( 9x \)", ("2 and 3 and 4 is 9 with an x", "put it all into one x")),
            "Squares_the_x": (r"\( 6x^2 + 3 \)", ("x and x is x squared", "two x make a square")),
        },
    ),
)
BEFORE = ("", "because ", "i think ")
AFTER = ("", ".", "!")
UNCLEAR = ("i guessed", "my friend told me", "it looks right", "no idea", "just a feeling", "we did this last year")
NONE = "NA"  # no misconception: text, not an absent cell
KIND_PROBS = (0.4, 0.4, 0.2)  # an explanation that is right, one with a misconception, one that says nothing
RIGHT_DESPITE = 0.2  # of those with a question's first misconception choose the right answer
OTHER_JUDGEMENT = 0.125  # how often annotators see something else
TRAIN_PER_TEST = 10
SAMPLE = "True_Correct:NA False_Neither:NA False_Misconception:Adds_across"


def _draw_row(row_id: int, rng: np.random.Generator) -> tuple[tuple[object, ...], dict[str, float]]:
    """The cells of a row without its label, and the probabilities of its labels."""
    question = QUESTIONS[int(rng.integers(len(QUESTIONS)))]
    kind, name = int(rng.choice(3, p=KIND_PROBS)), pick(tuple(question.misconceptions), rng)
    answer, phrases = question.misconceptions[name]
    if kind == 0:
        answer, phrases = question.right, question.explanations
    elif kind == 2:
        answer, phrases = pick(question.answers, rng), UNCLEAR
    elif name == next(iter(question.misconceptions)) and rng.random() < RIGHT_DESPITE:
        answer = question.right
    said = f"{pick(BEFORE, rng)}{pick(phrases, rng)}{pick(AFTER, rng)}"
    side = "True" if answer == question.right else "False"
    seen = f"{side}_{('Correct', 'Misconception', 'Neither')[kind]}:{name if kind == 1 else NONE}"
    other = f"{side}_Neither:{NONE}"
    if kind == 2:
        other = f"True_Correct:{NONE}" if side == "True" else f"False_Misconception:{name}"
    return (row_id, question.id, question.text, answer, said), {seen: 1 - OTHER_JUDGEMENT, other: OTHER_JUDGEMENT}


def write_sample_map(folder: Path, seed: int, num_train: int) -> str:
    """Write all files into `folder`; return one line that says what they hold."""
    rng = np.random.default_rng(seed)
    rows = [_draw_row(row_id, rng) for row_id in range(num_train + num_train // TRAIN_PER_TEST)]
    drawn = [list(probs)[int(rng.choice(len(probs), p=list(probs.values())))] for _, probs in rows]
    shown = ("row_id", "QuestionId", "QuestionText", "MC_Answer", "StudentExplanation")
    train = [(*cells, *label.split(":")) for (cells, _), label in zip(rows[:num_train], drawn, strict=False)]
    write_csv(folder / "train.csv", (*shown, "Category", "Misconception"), train)
    write_csv(folder / "test.csv", shown, [cells for cells, _ in rows[num_train:]])
    sample = [(cells[0], SAMPLE) for cells, _ in rows[num_train:]]
    write_csv(folder / "sample_submission.csv", ("row_id", "Category:Misconception"), sample)
    labels = sorted(set(drawn[:num_train]))
    truth = [(cells[0], *_shares(probs, labels)) for cells, probs in rows]
    write_csv(folder / "truth.csv", ("id", *labels), truth)
    best = 1 - OTHER_JUDGEMENT / 2  # the right one first, or second
    return f"{folder}: {num_train} train and {len(rows) - num_train} test rows, {len(labels)} labels, best MAP@3 {best}"


def _shares(probs: Mapping[str, float], labels: Sequence[str]) -> list[float]:
    """The probabilities of the labels; those that no training row has are left out, as a competition does."""
    known = sum(probs.get(label, 0) for label in labels)
    return [probs.get(label, 0) / known for label in labels]


main = sample_command(write_sample_map, "input/sample-map", rows=(100, 850, 100_000))

if __name__ == "__main__":
    run(main, __doc__)
