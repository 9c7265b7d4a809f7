"""Prompts are exact strings; what does not fit is cut from the fields, fairly and from the earliest turn on."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from nexttoken.errors import UserError
from nexttoken.prompts.prompt import Prompt
from nexttoken.types import Example, Message

CONF = Path(__file__).resolve().parents[2] / "conf" / "prompt"
FIELDS = {"prompt": ("Hi", "Why?"), "response_a": ("Hello", "Because"), "response_b": ("Hey", "")}

INSTRUCTION = """\
### Instruction
Which model's answer is appropriate for the prompt? If both are appropriate, answer `tie`.
### Prompt
Hi
Why?
### A
Hello
Because
### B
Hey

"""

CONVERSATION = """\
Which of these chatbots did a better job of answering the user's requests, or were they equally good?

~~~~~~~~~~ CONVERSATION WITH BOT A ~~~~~~~~~~

### User: "Hi"

### Bot A: "Hello"

### User: "Why?"

### Bot A: "Because"

~~~~~~~~~~ CONVERSATION WITH BOT B ~~~~~~~~~~

### User: "Hi"

### Bot B: "Hey"

### User: "Why?"

### Bot B: ""

"""


QUESTION = Example("", {"question": ("Which is a bird?",), "options": ("Oak", "Owl", "Ox")}, 1, 3)
QUIZ = """\
### Question
Which is a bird?
### Options
0: Oak
1: Owl
2: Ox
"""
PASSAGES = """\
### Passages
- Owls fly.
- Oxen do not.
"""
QUIZ_JA = """\
次のクイズに答え、正しい選択肢の番号を書いてください。
### 問題
Which is a bird?
### 選択肢
0: Oak
1: Owl
2: Ox
"""


def shipped(name: str) -> Prompt:
    options = yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8"))
    if "defaults" in options:
        below = yaml.safe_load((CONF / f"{options.pop('defaults')[0]}.yaml").read_text(encoding="utf-8"))
        options = below | options
    assert options.pop("_target_") == "nexttoken.prompts.Prompt"
    return Prompt(**options)


@pytest.mark.parametrize(
    ("name", "user", "cue"),
    [("instruction", INSTRUCTION, "### Answer\n"), ("conversation", CONVERSATION, "### Best response:")],
)
def test_shipped_prompts(name, user, cue):
    assert shipped(name).render(Example("", FIELDS)) == [Message("user", user), Message("assistant", cue)]


@pytest.mark.parametrize(
    ("name", "user", "cue"),
    [
        ("quiz", QUIZ, "### Answer\n"),
        ("quiz_from_1", QUIZ.replace("2: ", "3: ").replace("1: ", "2: ").replace("0: ", "1: "), "### Answer\n"),
        ("quiz_letters", QUIZ.replace("0: ", "A: ").replace("1: ", "B: ").replace("2: ", "C: "), "### Answer\n"),
        ("quiz_ja", QUIZ_JA, "### 回答\n"),
    ],
)
def test_shipped_prompts_of_options(name, user, cue):
    assert shipped(name).render(QUESTION) == [Message("user", user), Message("assistant", cue)]
    assert len(shipped(name).labels) == 18


ALPACA = "### Instruction:\nAdd.\n\n### Response:\n"  # tatsu-lab/stanford_alpaca, train.py, below its preamble
ALPACA_INPUT = "### Instruction:\nAdd.\n\n### Input:\n1 and 2\n\n### Response:\n"


@pytest.mark.parametrize(
    ("name", "material", "text"),
    [
        ("instruct", "", ALPACA),
        ("instruct", "1 and 2", ALPACA_INPUT),
        ("instruct_ja", "", "### 質問:\nAdd.\n\n### 回答:\n"),
        ("instruct_ja", "1 and 2", "### 質問:\nAdd.\n1 and 2\n\n### 回答:\n"),
        ("summary_ja", "1 and 2", "### 文章:\n1 and 2\n\n### 要約:\n"),
        ("summary_ja", "", "### 文章:\nAdd.\n\n### 要約:\n"),
    ],
)
def test_a_blank_line_stands_before_the_cue_of_an_open_answer(name, material, text):
    example = Example("", {"instruction": ("Add.",), "input": (material,), "length": ("9",)})
    *_, user, cue = shipped(name).render(example)
    assert user.content + cue.content == text


def test_passages_stand_behind_the_options_and_demonstrations_before_the_question():
    found = replace(QUESTION, fields={**QUESTION.fields, "passages": ("Owls fly.", "Oxen do not.")})
    assert shipped("quiz").render(found)[0].content == QUIZ + PASSAGES
    shown = replace(found, demonstrations=(QUESTION,))
    assert shipped("quiz_letters").render(shown) == [
        *shipped("quiz_letters").render(QUESTION)[:1],
        Message("assistant", "### Answer\nB"),
        *shipped("quiz_letters").render(found),
    ]
    with pytest.raises(UserError, match="row x has no answer"):
        shipped("quiz").render(replace(QUESTION, demonstrations=(replace(QUESTION, id="x", label=None),)))


def test_a_prompt_of_options_brings_labels_enough():
    assert shipped("quiz").for_classes("01234").labels == ("0", "1", "2", "3", "4")
    with pytest.raises(UserError, match="do not match the task's classes"):
        shipped("quiz").for_classes([str(n) for n in range(19)])
    with pytest.raises(UserError, match="do not match the task's classes"):
        shipped("instruction").for_classes("01")


def test_system_and_passages():
    prompt = Prompt(
        user="{{ q[0] }}{% for p in passages %} [{{ p }}]{% endfor %}", answer_cue="A:", labels=("a", "b"), system="S"
    )
    assert prompt.render(Example("", {"q": ("x",), "passages": ("one", "two")})) == [
        Message("system", "S"),
        Message("user", "x [one] [two]"),
        Message("assistant", "A:"),
    ]


@pytest.mark.parametrize("text", ["{{ 7*7 }}", "{% raw %}", "{# note #}", "{{ prompt.__class__ }}", "<b>&amp;</b>"])
def test_fields_are_text_not_templates(text):
    assert Prompt("{{ q[0] }}", "", ("a", "b")).render(Example("", {"q": (text,)}))[0].content == text


def test_a_column_called_context_is_a_field_unless_passages_show_it():
    example = Example("", {"context": ("the material",), "body": ("the text",)})
    every = "{% for name, text in fields.items() %}{{ name }}: {{ text }}\n{% endfor %}"
    shown = Prompt(every, "Answer: ", ["x", "y"]).render(example)[0].content
    assert shown == "context: the material\nbody: the text\n"
    beside = Prompt(every + "{{ passages[0] }}\n", "Answer: ", ["x", "y"]).render(example)[0].content
    assert beside == "body: the text\nthe material\n"


@pytest.mark.parametrize(
    ("user", "line"),
    [
        (
            "{{ answer }}",
            "the prompt cannot be rendered: 'answer' is undefined; a template can use a, choices, fields, labels,"
            " passages, q, turn",
        ),
        ("{{ answer | join }}", "'answer' is undefined"),
        ("{% for x in zip(q, answer) %}{{ x }}{% endfor %}", "'answer' is undefined"),
        ("{{ q[3] }}", "has no element 3"),
        ("{{ q + 1 }}", "can only concatenate tuple"),
        ("{{ q.__class__.__mro__ }}", "unsafe"),
    ],
)
def test_what_cannot_be_rendered_is_one_line(user, line):
    with pytest.raises(UserError, match=re.escape(line)) as error:
        Prompt(user, "", ("a", "b")).render(Example("", {"q": ("x",), "a": ("y",)}))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "options",
    [
        {"cut_at": 1.5},
        {"labels": ["A", "A"]},
        {"labels": ["A", ""]},
        {"user": "one line\n{{ q[0] "},
        {"system": "{% for %}"},
    ],
)
def test_a_wrong_prompt_is_refused_when_it_is_built(options):
    with pytest.raises(UserError, match="prompt") as error:
        Prompt(**{"user": "", "answer_cue": "", "labels": ["A", "B"], **options})
    assert "\n" not in str(error.value)
