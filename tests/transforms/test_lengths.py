"""The length that a summary is asked to have: a share of the whole text's characters, and never too few."""

from pathlib import Path

import pytest
import yaml

from nexttoken.errors import UserError
from nexttoken.prompts.prompt import Prompt
from nexttoken.transforms.counts import AddLength
from nexttoken.types import Example

CONF = Path(__file__).resolve().parents[2] / "conf" / "transforms" / "summary_length.yaml"


def article(text: str) -> Example:
    return Example("7", {"instruction": ("要約してください。",), "input": (text,)}, answer="short")


@pytest.mark.parametrize(("characters", "length"), [(0, "100"), (499, "100"), (504, "101"), (20_000, "4000")])
def test_a_fifth_of_the_characters_and_at_least_100(characters, length):
    row = article("字" * characters)
    (asked,) = AddLength()([row])
    assert asked.fields == {**row.fields, "length": (length,)}
    assert (asked.id, asked.answer) == (row.id, row.answer)


def test_the_prompt_writes_it():
    rows = AddLength(share=0.5, at_least=1)([article("12345678")])
    prompt = Prompt("{{ input[0] }} ({{ length[0] }} characters)", "", ("a", "b"))
    assert prompt.render(rows[0])[0].content == "12345678 (4 characters)"


def test_the_shipped_choice_is_the_default():
    (node,) = yaml.safe_load(CONF.read_text(encoding="utf-8")).values()
    assert node.pop("_target_") == "nexttoken.transforms.counts.AddLength"
    assert AddLength(**node) == AddLength()


@pytest.mark.parametrize("options", [{"share": 0}, {"share": 1.5}, {"at_least": 0}])
def test_numbers_that_mean_nothing_are_refused(options):
    with pytest.raises(UserError, match="expected"):
        AddLength(**options)


def test_a_field_that_is_not_there_or_taken_is_one_line():
    with pytest.raises(UserError, match="row 7 has no field 'text'; its fields are instruction, input"):
        AddLength(field="text")([article("x")])
    with pytest.raises(UserError, match="row 7 already has a field 'instruction'"):
        AddLength(name="instruction")([article("x")])
