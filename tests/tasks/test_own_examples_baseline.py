"""The baseline of rows that bring examples: likeness to the positive ones less likeness to the negative ones."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from nexttoken.errors import UserError
from nexttoken.tasks.baselines.choice import OwnExamplesBaseline
from nexttoken.types import Example

POSITIVE, NEGATIVE = (tuple(f"{kind}_example_{place}" for place in (1, 2)) for kind in ("positive", "negative"))
BASELINE = OwnExamplesBaseline("body", POSITIVE, NEGATIVE)
SUBJECTS = ("booking flights", "renting houses", "playing songs", "riding buses")


def row(body: str, positive: str, negative: str, label: int | None = None) -> Example:
    texts = {"body": body, **dict.fromkeys(POSITIVE, positive), **dict.fromkeys(NEGATIVE, negative)}
    return Example(body, {name: (text,) for name, text in texts.items()}, label)


def rows(subjects: tuple[str, ...], number: int = 20) -> list[Example]:
    """Of each subject against each other one, in turn about the positive and about the negative one."""
    pairs = [(one, other) for one in subjects for other in subjects if one != other]
    return [
        row(f"message {place}: {(one, other)[place % 2]}", one, other, 1 - place % 2)
        for one, other in pairs
        for place in range(number)
    ]


def test_it_reads_subjects_that_no_training_row_has():
    fitted = BASELINE.fit(rows(SUBJECTS[:2]))
    unseen = rows(SUBJECTS[2:])
    probs = fitted.predict(unseen)
    assert probs.argmax(axis=1).tolist() == [example.label for example in unseen]
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-12)


def test_changing_the_examples_places_changes_the_answer():
    fitted = BASELINE.fit(rows(SUBJECTS))
    one, other = fitted.predict([row("I play songs", *pair) for pair in (SUBJECTS[1:3], SUBJECTS[2:0:-1])])
    assert other[1] > 0.8
    np.testing.assert_allclose(one, other[::-1], atol=1e-12)


def test_the_training_rows_say_which_class_the_positive_examples_stand_for():
    turned = [row(e.id, e.fields[POSITIVE[0]][0], e.fields[NEGATIVE[0]][0], 1 - e.label) for e in rows(SUBJECTS)]
    asked = rows(SUBJECTS)[:8]
    usual, other = (BASELINE.fit(known).predict(asked) for known in (rows(SUBJECTS), turned))
    np.testing.assert_allclose(usual, other[:, ::-1], atol=1e-6)


def test_it_needs_labels_and_a_fit():
    with pytest.raises(UserError, match="no labelled examples"):
        BASELINE.fit([row("a", "b", "c")])
    with pytest.raises(UserError, match="not fitted"):
        BASELINE.predict([row("a", "b", "c")])
    fitted = BASELINE.fit(rows(SUBJECTS))
    assert fitted.predict([]).shape == (0, 2)
    assert fitted.predict([row("", "", "")]).sum() == pytest.approx(1)


def test_an_unseen_rule_of_real_messages_is_told_apart_by_its_examples(shared_dir):
    """Mean AUC of each rule of rules-mini, learnt from the other: far above 0.5, which words of other rules reach."""
    table = pd.read_csv(shared_dir / "data/rules-mini/train.csv", dtype=str, keep_default_na=False)
    names = ("body", "rule", *POSITIVE, *NEGATIVE)
    examples = [
        Example(cells["row_id"], {name: (cells[name],) for name in names}, int(cells["rule_violation"]))
        for cells in table.to_dict("records")
    ]
    aucs = []
    for rule in sorted(set(table["rule"])):
        held_out = [example for example in examples if example.fields["rule"] == (rule,)]
        fitted = BASELINE.fit([example for example in examples if example.fields["rule"] != (rule,)])
        aucs.append(roc_auc_score([example.label for example in held_out], fitted.predict(held_out)[:, 1]))
    assert np.mean(aucs) > 0.8
