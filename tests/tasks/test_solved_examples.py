"""Rows made of the solved examples that rows bring along: labels, repeats, conflicts, leaks, and what they show."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexttoken.data.near_duplicates import normalise
from nexttoken.errors import UserError
from nexttoken.tasks.solved_examples import SolvedExamples
from nexttoken.types import Example

COLUMNS = ("positive_example_1", "positive_example_2", "negative_example_1", "negative_example_2")
FIELDS = ("rule", "body", *COLUMNS)
LONG = "the quick brown fox jumps over the lazy dog and then it sleeps in the warm sun all day long"


def columns(given=None, by=("rule",), classes=("0", "1"), fields=FIELDS, texts=("body",)) -> SolvedExamples | None:
    return SolvedExamples.of(given, fields, classes, texts, by)


def row(name: str, examples: str, body: str = "", rule: str = "r", file: str = "train.csv", label=0) -> Example:
    """`examples` are the two positive and the two negative texts, a space between."""
    texts = {"rule": rule, "body": body or f"body of {name}", **dict(zip(COLUMNS, examples.split(" "), strict=True))}
    return Example(name, {key: (text,) for key, text in texts.items()}, label=label, tags={"file": file})


def labels(rows) -> dict[str, int]:
    return {one.text: one.example.label for one in rows}


def test_the_columns_are_found_by_their_names():
    found = columns()
    assert found == SolvedExamples("body", dict(zip(COLUMNS, (1, 1, 0, 0), strict=True)), ("rule",))
    assert columns(by=()).by == ("rule",)  # every other field
    assert columns(fields=("rule", "body")) is None
    assert columns(fields=("rule", "body", "positive_example_1")) is None
    assert columns(classes=("a", "b", "c")) is None
    assert columns(given={}) is None


def test_the_columns_are_given_by_class():
    found = columns(
        {"text": "rule", "by": "body", "c": "x", "a": ["y"]}, (), ("a", "b", "c"), ("rule", "body", "x", "y")
    )
    assert found == SolvedExamples("rule", {"x": 2, "y": 0}, ("body",))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"text": "bdy", "1": "positive_example_1"},
            "task.examples names 'bdy', which is no field; did you mean 'body'?",
        ),
        ({"1": ["positive"]}, "task.examples names 'positive', which is no field"),
        (
            {"by": "rul", "1": "positive_example_1"},
            "task.examples names 'rul', which is no field; did you mean 'rule'?",
        ),
        ({"yes": ["positive_example_1"]}, "task.examples names the class 'yes'; known: 0, 1"),
        ("positive_example_1", "task.examples='positive_example_1' is not accepted: expected"),
    ],
)
def test_other_columns_are_refused(given, message):
    with pytest.raises(UserError, match="^" + message.replace("?", r"\?")):
        columns(given)


def test_an_example_is_a_row_of_its_own_with_the_other_fields_of_the_row_that_shows_it():
    rows = columns().rows([], [], [row("7", "p q n m", file="test.csv")])
    assert labels(rows) == {"p": 1, "q": 1, "n": 0, "m": 0}
    first = rows[2].example
    assert (first.id, first.tags, first.fields["rule"]) == (
        "test.csv#7#positive_example_1",
        {"file": "test.csv"},
        ("r",),
    )
    assert first.fields["body"] == ("p",)
    assert (rows[2].by, rows[2].sources) == ({"rule": "r"}, ("test.csv#7",))


def test_repeats_are_one_row_and_the_test_row_that_shows_it_is_named_first():
    rows = columns().rows([row("1", "P! q n m")], [], [row("7", "p x y z", file="test.csv")])
    assert [one.text for one in rows if normalise(one.text) == "p"] == ["p"]
    assert next(one.sources for one in rows if one.text == "p") == ("test.csv#7", "train.csv#1")
    other_rule = columns().rows([row("1", "p q n m", rule="s")], [], [row("7", "p x y z")])
    assert [one.by["rule"] for one in other_rule if one.text == "p"] == ["r", "s"]


def test_conflicts_are_settled_by_the_majority_and_ties_are_left_out():
    rows = [row("1", "p a n m"), row("2", "n a b c"), row("3", "d e p f"), row("4", "p g h i")]
    found = labels(columns().rows([], [], rows))
    assert found["p"] == 1  # twice to once
    assert "n" not in found


def test_what_a_training_row_says_itself_is_not_said_again():
    assert "p" not in labels(columns().rows([row("1", "x y n m", body="P", label=0)], [], [row("2", "p q n m")]))


def test_only_training_rows_never_show_the_text_of_a_row_that_is_asked():
    asked = row("9", "a b c d", body=LONG)
    almost = LONG.replace("warm", "hot").replace(" ", "\u00a0")
    train = row("1", f"{almost} q n m")
    assert almost not in labels(columns().rows([train], [asked], []))
    assert almost in labels(columns().rows([train], [], []))
    assert almost in labels(columns().rows([train], [asked], [row("8", f"{almost} x y z")]))  # stands in the test file
    held_out = row("8", f"{almost} x y z")
    assert almost in labels(columns().rows([train], [asked, held_out], []))  # known with the rows that are asked


def test_another_example_of_the_class_stands_in_the_place_of_the_own_one():
    rows = columns().rows([], [], [row("1", "p q n m"), row("2", "v w x y"), row("3", "k l i j", rule="other")])
    made = next(one.example for one in rows if one.text == "p")
    assert made.fields["positive_example_1"][0] in ("v", "w")
    assert [made.fields[name][0] for name in COLUMNS[1:]] == ["q", "n", "m"]


def test_without_another_example_as_many_of_each_class_are_left_out():
    made = columns().rows([], [], [row("1", "p p n m")])[-1].example
    assert [made.fields[name][0] for name in COLUMNS] == ["", "", "", ""]
    made = columns().rows([], [], [row("1", "p q n m")])[2].example
    assert [made.fields[name][0] for name in COLUMNS] == ["", "q", "", "m"]


WORDS = st.sampled_from(["a", "b", "c", "d", "e", "f", "g", "h"])
ROWS = st.lists(st.tuples(WORDS, WORDS, WORDS, WORDS, WORDS, st.sampled_from("rs")), max_size=8)


@given(ROWS, ROWS, ROWS)
@settings(max_examples=60, deadline=None)
def test_no_row_shows_its_own_answer_and_none_repeats_or_leaks(train, asked, test):
    made = {}
    for file, rows in (("train", train), ("asked", asked), ("test", test)):
        made[file] = [
            row(str(n), " ".join(texts), body, rule, f"{file}.csv") for n, (*texts, body, rule) in enumerate(rows)
        ]
    rows = columns().rows(made["train"], made["asked"], made["test"])
    keys = [(one.text, one.by["rule"]) for one in rows]
    assert len(set(keys)) == len(keys) == len({one.example.id for one in rows})
    shown = Counter(
        (one.fields[name][0], one.fields["rule"][0], name[:8])
        for some in made.values()
        for one in some
        for name in COLUMNS
    )
    for (text, rule), one in zip(keys, rows, strict=True):
        positive, negative = shown[text, rule, "positive"], shown[text, rule, "negative"]
        assert one.example.label == (positive > negative)
        assert positive != negative
        beside = {name: one.example.fields[name][0] for name in COLUMNS}
        assert text not in beside.values()
        empty = Counter(name[:8] for name, other in beside.items() if not other)
        assert empty["positive"] == empty["negative"]
    bodies = {(one.fields["body"][0], one.fields["rule"][0]) for one in made["train"]}
    assert bodies.isdisjoint(keys)
    known = {one.fields[name][0] for file in ("asked", "test") for one in made[file] for name in COLUMNS}
    assert {text for text, _ in keys}.isdisjoint({one.fields["body"][0] for one in made["asked"]} - known)
