"""Audit of label tokens: after the prompts of a task, and after common endings of prompts."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from nexttoken.errors import UserError
from nexttoken.prompts.encode_labels import Encoder
from nexttoken.prompts.label_tokens import LabelTokens
from nexttoken.prompts.prompt import Prompt
from nexttoken.types import Example

MAX_TOKENS = 2048  # some chat templates add a long system message
LABEL_SETS = (("A", "B", "tie"), (" A", " B", " Tie"), tuple("01234"), tuple(map(str, range(1, 11))))
# They end in a punctuation mark, a letter or a digit; without a cue the label follows directly.
TEXTS = {
    "English": ("Which answer is better?", "Plant roses in May.", "Two lines\nof one row", "Rate it from 1 to 10"),
    "Japanese": ("どちらの回答が良いですか？", "バラは五月に植えます。", "一行目\n二行目", "評価は1から10"),
}
CUES = {"English": "### Answer", "Japanese": "### 回答"}
ENDINGS = {"line break": "\n{}\n", "colon": "\n{}:", "colon, space": "\n{}: ", "the text itself": ""}
CHAT = "chat template"


@dataclass(frozen=True)
class Situation:
    """A kind of prompt: its ending, its labels and its language."""

    after: str  # a key of ENDINGS, or CHAT
    labels: tuple[str, ...]
    language: str

    @property
    def prompt(self) -> Prompt:
        cue = ENDINGS.get(self.after, "").format(CUES[self.language])
        return Prompt("{{ text[0] }}", cue, self.labels, chat=self.after == CHAT)

    @property
    def examples(self) -> list[Example]:
        return [Example(str(number), {"text": (text,)}) for number, text in enumerate(TEXTS[self.language])]


@dataclass(frozen=True)
class Audit:
    """The label tokens in one situation, or the reason for their refusal."""

    situation: Situation
    tokens: LabelTokens | None
    refusal: str = ""

    def cells(self) -> tuple[str, ...]:
        """Tokens per label, scoring, tokens re-joined, verdict."""
        if self.tokens is None:
            return ("", "", "", f"refused: {self.refusal}")
        counts = " ".join(str(len(ids)) for ids in self.tokens.continuations)
        return (counts, reading(self.tokens), str(self.tokens.num_rejoined), "ok")


@dataclass(frozen=True)
class PromptAudit:
    """The label tokens of a configuration after its prompts."""

    labels: LabelTokens
    num_rows: int
    num_opening: int  # beginning-of-sequence tokens of a prompt
    chat: bool

    def __str__(self) -> str:
        whole = "" if self.labels.one_token_each else "whole label sequences "
        number = self.labels.num_rejoined
        rejoined = f", {number} of the prompt's last tokens re-joined" if number else ""
        template = "chat template" if self.chat else "no chat template"
        return (
            f"{self.labels.table()}\nread {whole}in {reading(self.labels)}{rejoined}\n"
            f"{self.num_rows} rows, beginning-of-sequence tokens: {self.num_opening}, {template}"
        )


def reading(tokens: LabelTokens) -> str:
    """Describe how labels are scored: by the logits of one pass, or as whole sequences, once per context."""
    number = len(tokens.contexts)
    return "one pass" if tokens.one_token_each else f"{number} context{'s' * (number > 1)}"


def audit_prompt(tokenizer: Any, prompt: Prompt, max_tokens: int, rows: Sequence[Example]) -> PromptAudit:
    """Find the label tokens after real examples. Raises UserError if they are refused."""
    encoded = Encoder(tokenizer, prompt, max_tokens).encode(rows)
    ids = encoded.prompts[0].token_ids.tolist()
    opening = next((i for i, token in enumerate(ids) if token != tokenizer.bos_token_id), len(ids))
    return PromptAudit(encoded.labels, len(rows), opening, prompt.chat)


def audit_situations(tokenizer: Any) -> list[Audit]:
    """Audit every ending, language and label set, and the chat template if the tokenizer has one."""
    endings = [*ENDINGS, *[CHAT] * bool(tokenizer.chat_template)]
    return [_audit(tokenizer, Situation(*parts)) for parts in product(endings, LABEL_SETS, TEXTS)]


def _audit(tokenizer: Any, situation: Situation) -> Audit:
    try:
        return Audit(situation, Encoder(tokenizer, situation.prompt, MAX_TOKENS).encode(situation.examples).labels)
    except UserError as error:
        return Audit(situation, None, re.split(r"[:;\n]", str(error))[0])
