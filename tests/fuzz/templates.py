"""Templates from strangers: those of prompts, and the chat templates that come with models."""

import re
from pathlib import Path
from types import SimpleNamespace

import yaml

from fuzz.rule import obey
from fuzz.target import Target
from nexttoken.prompts.chat_templates import TEMPLATES, choose_template
from nexttoken.prompts.prompt import Prompt
from nexttoken.types import Example, Message
from support.composed import CONF

CHOICES = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted((CONF / "prompt").glob("*.yaml"))]
SHIPPED = [choice["user"] for choice in CHOICES if "user" in choice]
NAMES = {name for one in SHIPPED for name in re.findall(r"\b[a-z_]+\b", one)} - {"fields", "passages", "turn", "zip"}
EXAMPLE = Example("a", dict.fromkeys(NAMES, ("Which?", "")) | {"options": ("x", "\ud800")}, num_options=2)
MESSAGES = (Message("system", "Be brief."), Message("user", "{{ 7 * 7 }}"), Message("assistant", "<|im_end|>"))
ANSWERED = "{% for message in messages %}{{ message.content }}{% endfor %}"
TAGS = ("{% macro m(n) %}{{ m(n) }}{% endmacro %}", "{% set x = namespace(a=[]) %}", "{{ 'x' | center(9) }}")


def prompts(_: Path) -> Target:
    def use(template: str) -> None:
        prompt = Prompt(template, "### Answer\n", ("A", "B"), ("first", "second"), options="options")
        prompt.render(EXAMPLE)
        prompt.count_unshown([EXAMPLE])

    def one_input(data: bytes) -> bool:
        return obey(lambda: use(text_of(data)))

    return Target(one_input, tuple(text.encode() for text in (*SHIPPED, *TAGS)))


def chat_templates(_: Path) -> Target:
    def use(source: str) -> None:
        tokens = {"bos_token": "<s>", "eos_token": "</s>"}
        chat = choose_template("", SimpleNamespace(chat_template=source, special_tokens_map=tokens))
        chat(MESSAGES[:2])
        chat(MESSAGES, opens_answer=False)
        assert isinstance(chat.end_mark + chat.surplus, str)

    def one_input(data: bytes) -> bool:
        return obey(lambda: use(text_of(data)))

    with_system = (text for name, text in TEMPLATES.items() if name != "gemma")
    return Target(one_input, tuple(text.encode() for text in (*with_system, *(ANSWERED + tag for tag in TAGS))))


def text_of(data: bytes) -> str:
    """Any text, halves of characters among them."""
    return data.decode("utf-8", "surrogateescape")
