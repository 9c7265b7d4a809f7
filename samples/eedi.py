"""Write train.csv (`questions` rows), test.csv, misconception_mapping.csv, sample_submission.csv and answers.csv.

The same seed gives the same bytes.

python -m samples.eedi [output_dir=input/sample-eedi] [seed=0] [questions=300]

The competition is generated, in the files of Kaggle's "Eedi - Mining Misconceptions in Mathematics". A question is
about one of ten subjects; each wrong answer says which of ten errors led to it, and its label is the misconception with
that subject and that error, of a hundred. The training rows know 40 of them; three quarters of the test answers ask for
one of the other 60, so only the texts of the misconceptions tell. answers.csv has the labels of the test rows.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nexttoken.commands.arguments import run
from samples import pick, sample_command, some, words, write_csv

SUBJECTS = words("fractions decimals angles areas ratios percentages negatives powers brackets primes")
ERRORS = words("sum difference first second reverse double half increase decrease square")
NAMES = (
    "Thinks that {subject} call for the {error}",
    "Takes the {error} of two {subject}",
    "With {subject}, gives the {error}",
)
ASKED = (
    "Multiply the two {subject} {a} and {b}",
    "What do the {subject} {a} and {b} multiply to?",
    "Find {a} times {b} ({subject})",
)
ANSWER = "the {error}, {value}"
LETTERS = "ABCD"
SEEN_ERRORS = 4  # of each subject, in the training rows
SEEN_RATE = 0.25  # of the test answers have a misconception that training rows have
UNJUDGED_RATE = 0.1  # of the wrong answers in training rows have no label
TRAIN_PER_TEST = 6
MAX_ANSWERS = 25
SHOWN = (
    "QuestionId", "ConstructId", "ConstructName", "SubjectId", "SubjectName", "CorrectAnswer", "QuestionText",
    *(f"Answer{letter}Text" for letter in LETTERS),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Question:
    """The cells of SHOWN, and the misconception of each letter; None for the right answer."""

    cells: tuple[object, ...]
    misconceptions: tuple[int | None, ...]


def misconception_id(subject: int, error: int) -> int:
    """Misconceptions stand in no order that tells anything: 37 shares no factor with their number."""
    return (subject * len(ERRORS) + error) * 37 % (len(SUBJECTS) * len(ERRORS))


def misconception_names() -> list[str]:
    """The texts of misconception_mapping.csv by id."""
    names = {
        misconception_id(subject, error): NAMES[(subject + error) % len(NAMES)].format(
            subject=SUBJECTS[subject], error=ERRORS[error]
        )
        for subject in range(len(SUBJECTS))
        for error in range(len(ERRORS))
    }
    return [names[number] for number in range(len(names))]


def is_seen(subject: int, error: int) -> bool:
    """Training rows have each subject and each error, but not each pair of them."""
    return (subject + error) % len(ERRORS) < SEEN_ERRORS


def draw_question(row_id: int, is_test: bool, rng: np.random.Generator) -> Question:
    """Three wrong answers with different errors beside the right one, in random order."""
    subject = int(rng.integers(len(SUBJECTS)))
    a, b = rng.integers(3, 60, size=2).tolist()
    seen, new = ([e for e in range(len(ERRORS)) if is_seen(subject, e) is wanted] for wanted in (True, False))
    num_seen = int(rng.binomial(len(LETTERS) - 1, SEEN_RATE)) if is_test else len(LETTERS) - 1
    errors = [*some(seen, num_seen, rng), *some(new, len(LETTERS) - 1 - num_seen, rng)]
    answers = {None: str(a * b)} | {
        error: ANSWER.format(error=ERRORS[error], value=_value(error, a, b)) for error in errors
    }
    order = some(list(answers), len(answers), rng)
    name = SUBJECTS[subject]
    cells = (
        row_id, 100 + subject, f"Multiply two {name}", subject, name.capitalize(), LETTERS[order.index(None)],
        pick(ASKED, rng).format(subject=name, a=a, b=b), *(answers[error] for error in order),
    )  # fmt: skip
    return Question(cells, tuple(None if error is None else misconception_id(subject, error) for error in order))


def _value(error: int, a: int, b: int) -> str:
    values = (a + b, a - b, a, b, f"{b}{a}", 2 * a * b, a * b / 2, a * b + 1, a * b - 1, a * a)
    return f"{values[error]}"


def write_sample_eedi(folder: Path, seed: int, num_train: int) -> str:
    """Write all files into `folder`; return one line that says what they hold."""
    rng = np.random.default_rng(seed)
    number = num_train + num_train // TRAIN_PER_TEST
    questions = [draw_question(row_id, row_id >= num_train, rng) for row_id in range(number)]
    train, test = questions[:num_train], questions[num_train:]
    labels = tuple(f"Misconception{letter}Id" for letter in LETTERS)
    write_csv(folder / "train.csv", (*SHOWN, *labels), [(*q.cells, *_judged(q, rng)) for q in train])
    write_csv(folder / "test.csv", SHOWN, [question.cells for question in test])
    names = misconception_names()
    write_csv(folder / "misconception_mapping.csv", ("MisconceptionId", "MisconceptionName"), list(enumerate(names)))
    asked = [
        (f"{question.cells[0]}_{letter}", label)
        for question in test
        for letter, label in zip(LETTERS, question.misconceptions, strict=True)
        if label is not None
    ]
    header, guess = ("QuestionId_Answer", "MisconceptionId"), " ".join(map(str, range(MAX_ANSWERS)))
    write_csv(folder / "sample_submission.csv", header, [(row_id, guess) for row_id, _ in asked])
    write_csv(folder / "answers.csv", header, asked)
    return f"{folder}: {len(train)} train and {len(test)} test questions, {len(names)} misconceptions"


def _judged(question: Question, rng: np.random.Generator) -> list[object]:
    """The labels of the four answers as a training row has them: some are missing."""
    return ["" if label is None or rng.random() < UNJUDGED_RATE else label for label in question.misconceptions]


main = sample_command(write_sample_eedi, "input/sample-eedi", questions=(20, 300, 100_000))

if __name__ == "__main__":
    run(main, __doc__)
