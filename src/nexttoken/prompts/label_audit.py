"""What a tokenizer makes of labels: after the prompts of a task, and in situations that people ask about."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from nexttoken.errors import UserError
from nexttoken.prompts.encode_labels import Encoder
from nexttoken.prompts.label_tokens import LabelTokens
from nexttoken.prompts.prompt import Prompt
from nexttoken.types import Example

MAX_TOKENS = 2048  # chat templates may bring a system message of their own
LABEL_SETS = (
    ("A", "B", "tie"),
    (" A", " B", " Tie"),
    tuple(map(str, range(5))),
    tuple(map(str, range(1, 11))),
)
# Rows that end in a mark, a letter and a digit: without a cue the label stands right behind them.
TEXTS = {
    "English": ("Which answer is better?", "Plant roses in May.", "Two lines\nof one row", "Rate it from 1 to 10"),
    "Japanese": ("どちらの回答が良いですか？", "バラは五月に植えます。", "一行目\n二行目", "評価は1から10"),
}
CUES = {"English": "### Answer", "Japanese": "### 回答"}
ENDINGS = {"line break": "\n{}\n", "colon": "\n{}:", "colon, space": "\n{}: ", "the text itself": ""}
CHAT = "chat template"


@dataclass(frozen=True)
class Situation:
    """Where a label stands: behind what, in a prompt of which language."""

    after: str  # a key of ENDINGS, or CHAT
    language: str
    labels: tuple[str, ...]

    @property
    def prompt(self) -> Prompt:
        cue = ENDINGS.get(self.after, "").format(CUES[self.language])
        return Prompt("{{ text[0] }}", cue, self.labels, chat=self.after == CHAT)

    @property
    def rows(self) -> list[Example]:
        return [Example(str(number), {"text": (text,)}) for number, text in enumerate(TEXTS[self.language])]


@dataclass(frozen=True)
class Audit:
    """The label tokens in one situation, or why they are refused there."""

    situation: Situation
    tokens: LabelTokens | None
    refusal: str = ""

    def cells(self) -> tuple[str, ...]:
        """Tokens per label, how they are read, tokens re-joined, verdict."""
        if self.tokens is None:
            return ("", "", "", f"refused: {self.refusal}")
        counts = " ".join(str(len(ids)) for ids in self.tokens.continuations)
        return (counts, reading(self.tokens), str(self.tokens.num_rejoined), "ok")


@dataclass(frozen=True)
class OwnPrompt:
    """The labels of a configuration after its own prompts (at most as many as were looked at)."""

    labels: LabelTokens
    num_rows: int
    num_opening: int  # beginning-of-sequence tokens of a prompt
    chat: bool

    def __str__(self) -> str:
        whole = "" if self.labels.one_token_each else "whole label sequences "
        rejoined = f", {self.labels.num_rejoined} of the prompt's last tokens re-joined" * bool(
            self.labels.num_rejoined
        )
        template = "chat template" if self.chat else "no chat template"
        return (
            f"{self.labels.table()}\nread {whole}in {reading(self.labels)}{rejoined}\n"
            f"{self.num_rows} rows, beginning-of-sequence tokens: {self.num_opening}, {template}"
        )


def reading(tokens: LabelTokens) -> str:
    """How the labels are scored: by the logits of one pass, or whole, once per context."""
    number = len(tokens.contexts)
    return "one pass" if tokens.one_token_each else f"{number} context{'s' * (number > 1)}"


def audit_prompt(tokenizer: Any, prompt: Prompt, max_tokens: int, rows: Sequence[Example]) -> OwnPrompt:
    """Find the labels after real rows. Raises UserError when they are refused, with their table where there is one."""
    encoded = Encoder(tokenizer, prompt, max_tokens).encode(rows)
    ids = encoded.prompts[0].token_ids.tolist()
    opening = next((i for i, token in enumerate(ids) if token != tokenizer.bos_token_id), len(ids))
    return OwnPrompt(encoded.labels, len(rows), opening, prompt.chat)


def audit_situations(tokenizer: Any) -> list[Audit]:
    """Every ending, language and label set; the chat template's end too where the tokenizer has one."""
    return list(_audits(tokenizer))


def _audits(tokenizer: Any) -> Iterator[Audit]:
    endings = [*ENDINGS, *[CHAT] * bool(tokenizer.chat_template)]
    for after, labels, language in product(endings, LABEL_SETS, TEXTS):
        situation = Situation(after, language, labels)
        try:
            encoded = Encoder(tokenizer, situation.prompt, MAX_TOKENS).encode(situation.rows)
            yield Audit(situation, encoded.labels)
        except UserError as error:
            yield Audit(situation, None, re.split(r"[:;\n]", str(error))[0])
