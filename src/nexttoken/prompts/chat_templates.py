"""Jinja chat templates: those of tokenizers, some by name for tokenizers without one, and their rendering."""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import date
from functools import cached_property, lru_cache
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols

from nexttoken.errors import UserError, nearest, one_line
from nexttoken.prompts.sandbox import LimitError, SafeTemplate, Sandbox, compile_template
from nexttoken.types import Message

OTHER_TEMPLATE = "use another prompt.chat_template or prompt.chat=false"
SYSTEM, QUESTION, ANSWER = Message("system", "Sys0"), Message("user", "Ask1"), Message("assistant", "Say2")
# A thought that is opened, such as <think>, [THINK], <seed:think>, <think budget="1"> or <|START_THINKING|>.
OPEN_THOUGHT = re.compile(
    r"(?P<opens>[<\[◁]\|?)(?P<name>(?:\w+:)?(?:(?:start|begin)_(?:of_)?)?(?:think|thinking|thought|reasoning))"
    r"(?:\s[^<>\[\]]*)?(?P<closes>\|?[>\]▷])(?P<end>\s*)\Z",
    re.I,
)
TODAY = date(2024, 7, 26)  # for every template that writes the date: that of Llama 3's where it is not told another

GEMMA = """{{ bos_token }}{% for message in messages %}
{% if message.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
<start_of_turn>{{ 'model' if message.role == 'assistant' else message.role }}
{{ message.content.strip() }}<end_of_turn>
{% endfor %}{% if add_generation_prompt %}<start_of_turn>model
{% endif %}"""

CHATML = """{% for message in messages %}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

LLAMA3 = """{{ bos_token }}{% for message in messages %}
<|start_header_id|>{{ message.role }}<|end_header_id|>

{{ message.content.strip() }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}
<|start_header_id|>assistant<|end_header_id|>

{% endif %}"""

# Stanford Alpaca's format; answers end with end-of-text, a token that every tokenizer here has.
ALPACA = """{% for message in messages %}{% if message.role == 'system' %}{{ message.content }}

{% elif message.role == 'user' %}### Instruction:
{{ message.content }}

{% else %}### Response:
{{ message.content }}{{ eos_token }}

{% endif %}{% endfor %}{% if add_generation_prompt %}### Response:
{% endif %}"""

TEMPLATES = {"gemma": GEMMA, "chatml": CHATML, "llama3": LLAMA3, "alpaca": ALPACA}


class ChatTemplate:
    """A chat template with the texts of its tokenizer's special tokens."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        self.source, self._special_tokens = source, special_tokens

    def __call__(self, messages: Sequence[Message], opens_answer: bool = True) -> str:
        """Format messages; `opens_answer` adds the beginning of the assistant's next turn.

        The beginning is all that the template writes before an answer. Templates with a thinking mode (Qwen3's) are
        told to leave it out; a thought that is opened nevertheless is closed, so that the answer itself follows.
        Raises UserError for messages that the template refuses, and for a template beyond the sandbox's limits.
        """
        try:
            return self._write(messages, opens_answer) + (self._rest if opens_answer else "")
        except LimitError as error:
            raise UserError(f"the chat template {error}; {OTHER_TEMPLATE}") from None
        except Exception as error:  # templates raise their own errors, such as 'System role not supported'
            raise UserError(
                f"the chat template refuses this prompt: {one_line(error)}; try prompt.system='' or prompt.chat=false"
            ) from None

    @cached_property
    def texts(self) -> list[str]:
        """Texts that the template writes itself: its source, and short conversations."""
        samples = [(SYSTEM, QUESTION, ANSWER), (QUESTION, ANSWER), (QUESTION,)]
        return [self.source, *(self._try(sample, opens) for sample in samples for opens in (True, False))]

    @cached_property
    def end_mark(self) -> str:
        """Text after an answer. Raises UserError for a template that writes no answers."""
        _, answer, mark = self((QUESTION, ANSWER), opens_answer=False).rpartition(ANSWER.content)
        if not answer:
            raise UserError("the chat template writes no answers; use prompt.chat=false or another chat_template")
        return mark

    @cached_property
    def surplus(self) -> str:
        """End of an opened turn that answered turns lack, such as a thought or a cue."""
        opened, before = self((QUESTION,)), self._before_answer
        return opened.removeprefix(before) if before and opened.startswith(before) else ""

    @cached_property
    def _before_answer(self) -> str:
        """Text of a short conversation up to its answer, "" where the template tells no answers from questions."""
        before, answer, _ = self._try((QUESTION, ANSWER), False).partition(ANSWER.content)
        same, _, _ = self._try((QUESTION, Message("user", ANSWER.content)), False).partition(ANSWER.content)
        return before if answer and before != same else ""

    @cached_property
    def _rest(self) -> str:
        """Text before an answer that the template leaves out where it only opens one."""
        opened, before = self._write((QUESTION,), True), self._before_answer
        rest = before.removeprefix(opened) if before.startswith(opened) else ""
        if rest.strip():
            return rest
        if not (thought := OPEN_THOUGHT.search(opened)):
            return ""
        name = re.sub("^(?:start|begin)", "end", thought["name"], flags=re.I)
        ended = f"/{name}" if name == thought["name"] else name.upper() if thought["name"].isupper() else name
        mark = f"{thought['opens']}{ended}{thought['closes']}"
        return "\n" * (2 - min(thought["end"].count("\n"), 1)) + f"{mark}\n\n"

    def _try(self, messages: Sequence[Message], opens_answer: bool) -> str:
        """The text of `messages`, "" where the template refuses them."""
        try:
            return self._write(messages, opens_answer)
        except LimitError:
            raise
        except Exception:  # such as 'System role not supported'
            return ""

    def _write(self, messages: Sequence[Message], opens_answer: bool) -> str:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        values = {"messages": turns, "add_generation_prompt": opens_answer, "enable_thinking": False}
        values |= {"tools": None, "documents": None}  # as transformers gives them where there are none
        num_characters = sum(len(message.content) for message in messages)
        return _compile(self.source).render({**self._special_tokens, **values}, num_characters)


def named(name: str, own: Mapping[str, str] | None = None) -> str:
    """The template of that name, of those shipped here and a tokenizer's `own`. Raises UserError for any other."""
    known = {**TEMPLATES, **(own or {})}
    if name not in known:
        raise UserError(f"prompt.chat_template={name!r} is not known; {nearest(name, known)}")
    return known[name]


def choose_template(name: str, tokenizer: Any) -> ChatTemplate:
    """The template called `name`, of those shipped here and the tokenizer's own; "" is the tokenizer's default.

    Raises UserError for an unknown name, and for a tokenizer without a template, with one that is no text, or with
    several and no default.
    """
    own = tokenizer.chat_template or {}
    several = dict(own) if isinstance(own, Mapping) else {"default": own}
    if wrong := [one for one in several.values() if not isinstance(one, str)]:
        raise UserError(
            f"this tokenizer has the chat template {str(wrong[0])[:40]!r}, expected a text; {OTHER_TEMPLATE}"
        )
    if not name and not several:
        raise UserError(
            "prompt.chat=true, but this tokenizer has no chat template; name one (prompt.chat_template=gemma or"
            " chatml), or use prompt.chat=false"
        )
    if not name and len(several) > 1 and "default" not in several:
        raise UserError(
            f"this tokenizer has the chat templates {', '.join(sorted(several))} and no default; choose one with"
            f" prompt.chat_template={min(several)}"
        )
    source = named(name, several) if name else several.get("default", min(several.values()))
    template = ChatTemplate(source, tokenizer.special_tokens_map)
    try:
        template.texts  # noqa: B018 - refuses a template beyond the limits before any row is read
    except LimitError as error:
        raise UserError(f"the chat template {error}; {OTHER_TEMPLATE}") from None
    return template


@lru_cache
def _compile(template: str) -> SafeTemplate:
    """Compile as transformers does, but with one fixed date: else a prompt would change from one day to the next."""
    environment = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _refuse, "strftime_now": TODAY.strftime}
    return compile_template("the chat template", template, environment)


class Generation(Extension):
    """The tag by which templates mark the assistant's words; its content is written like any other."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
