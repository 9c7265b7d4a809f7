"""Write train.csv (`rows` rows), test.csv, sample_submission.csv and truth.csv; the same seed gives the same bytes.

python -m samples.jigsaw_rules [output_dir=input/sample-jigsaw-rules] [seed=0] [rows=500]

The competition is generated, in the files of Kaggle's "Jigsaw - Agile Community Rules Classification", with known true
probabilities. A comment breaks a rule where it speaks of the rule's subject; moderators decide otherwise on one comment
in twenty. The training rows know two rules, the test rows six: of the other four, only the examples that come with the
test rows tell. Examples are drawn from a few comments for each rule, so that many rows share them, and one test comment
in ten is an example of other rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nexttoken.commands.arguments import run
from samples import lines, pick, sample_command, some, words, write_csv


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule, what a comment that breaks it says ({} is one of its things), and the things."""

    text: str
    sentences: tuple[str, ...]
    things: tuple[str, ...]


RULES = (
    Rule("No advertising.",
         lines("Buy my {} today.\nThe best {} in my shop.\nMy code for cheap {}.\nOrder {} by this link."),
         words("shoes watches phones bags lamps chairs")),
    Rule("No legal advice.",
         lines("Sue them over the {}.\nA judge will see the {}.\nMy lawyer wrote the {}.\nIs the {} legal?"),
         words("contract will lease permit fine licence")),
    Rule("No spoilers.",
         lines("In the last scene the {} dies.\nThe {} is the killer.\nAt the end the {} wins.\nThe {} was a dream."),
         words("hero king wizard captain sister robot")),
    Rule("No medical advice.",
         lines("Take two pills for the {}.\nMy doctor treats the {}.\nThis cream heals a {}.\nIs the {} an illness?"),
         words("headache rash cough fever toothache burn")),
    Rule("No financial advice.",
         lines("Put your money in {}.\nSell all your {} now.\nMy bank likes {}.\nInvest early in {}."),
         words("stocks bonds gold funds oil crypto")),
    Rule("No politics.",
         lines("Vote for the {}.\nThe {} lost the election.\nParliament hates the {}.\nMinister and {} lie."),
         words("greens party mayor senate left union")),
)  # fmt: skip
NUM_TRAIN_RULES = 2
SUBREDDITS = words("askhere weekend smalltown books kitchen")
CHATTER = words("Ha! True. Thanks! Really? Well. Nice.")
OTHER_JUDGEMENT = 0.05  # how often moderators decide otherwise
COMMENTS_FOR_EXAMPLES = 8  # of each rule and kind
SHARED_RATE = 0.1  # of the comments are examples of other rows
TEST_PER_TRAIN = 0.36
KINDS = ("negative", "positive")  # by the label
EXAMPLES = tuple(f"{kind}_example_{place}" for kind in KINDS[::-1] for place in (1, 2))


def _comment(rule: int, breaks: int, rng: np.random.Generator) -> str:
    """Chatter around a sentence on the rule's subject, or on that of another rule."""
    subject = RULES[rule if breaks else pick([other for other in range(len(RULES)) if other != rule], rng)]
    said = [pick(subject.sentences, rng).format(pick(subject.things, rng)), pick(CHATTER, rng)]
    return " ".join(some(said, 2, rng))


def _draw_rows(rules: Sequence[int], number: int, first_id: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Rows with all columns of train.csv, and `prob`, the probability that moderators see a violation."""
    pools = {
        (rule, kind): [_comment(rule, kind, rng) for _ in range(COMMENTS_FOR_EXAMPLES)]
        for rule in rules
        for kind in (0, 1)
    }
    return [_draw_row(first_id + place, rules[place % len(rules)], pools, rng) for place in range(number)]


def _draw_row(
    row_id: int, rule: int, pools: Mapping[tuple[int, int], list[str]], rng: np.random.Generator
) -> dict[str, Any]:
    breaks = int(rng.integers(2))
    examples = {kind: some(pools[rule, kind], 3, rng) for kind in (0, 1)}
    body = examples[breaks].pop() if rng.random() < SHARED_RATE else _comment(rule, breaks, rng)
    prob = 1 - OTHER_JUDGEMENT if breaks else OTHER_JUDGEMENT
    shown = [*examples[1][:2], *examples[0][:2]]
    return {
        "row_id": row_id,
        "body": body,
        "rule": RULES[rule].text,
        "subreddit": pick(SUBREDDITS, rng),
        **dict(zip(EXAMPLES, shown, strict=True)),
        "rule_violation": int(rng.random() < prob),
        "prob": prob,
    }


def write_sample_jigsaw_rules(folder: Path, seed: int, num_train: int) -> str:
    """Write all files into `folder`; return one line that says what they hold."""
    rng = np.random.default_rng(seed)
    train = _draw_rows(range(NUM_TRAIN_RULES), num_train, 0, rng)
    test = _draw_rows(range(len(RULES)), int(num_train * TEST_PER_TRAIN), num_train, rng)
    shown = ("row_id", "body", "rule", "subreddit", *EXAMPLES)
    write_csv(folder / "train.csv", (*shown, "rule_violation"), _cells(train, (*shown, "rule_violation")))
    write_csv(folder / "test.csv", shown, _cells(test, shown))
    write_csv(folder / "sample_submission.csv", ("row_id", "rule_violation"), [(row["row_id"], 0.5) for row in test])
    truth = [(row["row_id"], round(1 - row["prob"], 4), row["prob"]) for row in (*train, *test)]
    write_csv(folder / "truth.csv", ("id", "0", "1"), truth)
    return f"{folder}: {len(train)} train rows of {NUM_TRAIN_RULES} rules, {len(test)} test rows of {len(RULES)}"


def _cells(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> list[list[object]]:
    return [[row[name] for name in columns] for row in rows]


main = sample_command(write_sample_jigsaw_rules, "input/sample-jigsaw-rules", rows=(20, 500, 100_000))

if __name__ == "__main__":
    run(main, __doc__)
