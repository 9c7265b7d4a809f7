"""Control tokens: special tokens and a chat template's marks, which texts in the data must never become."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any
from unicodedata import normalize

from nexttoken.prompts.label_tokens import num_shared
from nexttoken.types import Example

ZERO_WIDTH_SPACE = "\u200b"
BLANKS = " \t\r\n\u2581"
MARK = re.compile(r"[^\w\s].*\w.*[^\w\s]")  # the form of a mark, such as <|im_end|>, [INST] or <think>
WRITTEN_MARK = re.compile(r"<[^<>\s]+>|\[/?[A-Z_]+\]")  # the same in a text around it
# Some tokenizers (Gemma's) have HTML as tokens, which is text where no chat template writes it.
HTML = re.compile(
    r"</?(a|b|i|p|s|u|em|h[1-6]|hr?|br|div|code|html|body|head|img|li|ol|ul|pre|su[bp]|span|strong|blockquote"
    r"|t[dhr]|table|caption|thead|tbody|tfoot)/?>"
)


def find_marks(tokenizer: Any, written: Sequence[str]) -> list[str]:
    """The texts that must not come from data: special tokens, and marks that are tokens or that a template writes.

    `written` are texts of the chat template. Tokens that were added as words or as white space stay text.
    """
    added, whole = tokenizer.added_tokens_decoder.values(), "\n".join(written)
    marks = {token.content for token in added if token.special}.union(map(str, tokenizer.all_special_tokens))
    for text in (token.content for token in added):
        is_written = text in whole and not text.isalnum()
        if text.strip(BLANKS) and (is_written or (MARK.fullmatch(text) and not HTML.fullmatch(text))):
            marks.add(text)
    return sorted(filter(None, marks.union(WRITTEN_MARK.findall(whole))))


class Disarm:
    """Breaks marks such as '</s>' in the data by a zero-width space, so that they never become control tokens.

    `ids` are the control tokens: the marks that are one token of this tokenizer.
    """

    def __init__(self, tokenizer: Any, written: Sequence[str] = ()) -> None:
        marks = find_marks(tokenizer, written)
        self.special = re.compile(_any_of(marks) or r"(?!)")
        ids = dict(zip(marks, tokenizer.convert_tokens_to_ids(marks), strict=True))
        unknown = {tokenizer.unk_token_id, None}  # a mark that is not one token gets this id
        self.ids = frozenset(id for mark, id in ids.items() if id not in unknown or mark == tokenizer.unk_token)
        normalizer = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
        self._folds = normalizer is not None and "<" in normalizer.normalize_str("\uff1c")  # full-width letters, too

    def __call__(self, example: Example) -> tuple[Example, int]:
        """Return the example without marks in fields, answer and demonstrations, and their number."""
        count = 0

        def break_up(text: str) -> str:
            nonlocal count
            if self._folds and self.special.search(folded := normalize("NFKC", text)):
                text = folded
            while self.special.search(text):  # again where a mark stands inside another one
                text, number = self.special.subn(_break_mark, text)
                count += number
            return text

        fields = {name: tuple(map(break_up, turns)) for name, turns in example.fields.items()}
        answer = None if example.answer is None else break_up(example.answer)
        shown = [self(demonstration) for demonstration in example.demonstrations]
        if not shown and answer == example.answer and fields == example.fields:
            return example, 0
        clean = replace(example, fields=fields, answer=answer, demonstrations=tuple(one for one, _ in shown))
        return clean, count + sum(number for _, number in shown)


def _break_mark(match: re.Match) -> str:
    mark = match[0]
    return f"{mark[0]}{ZERO_WIDTH_SPACE}{mark[1:]}" if len(mark) > 1 else "\ufffd"


def _any_of(words: Sequence[str]) -> str:
    """A pattern of any of the sorted words that branches where they differ: thousands of branches at once are slow."""
    return "|".join(_branches(words))


def _branches(words: Sequence[str]) -> Iterator[str]:
    for _, group in groupby(words, key=lambda word: word[0]):
        alike = [*group]
        shared = alike[0][: num_shared(alike[0], alike[-1])]
        longer = [word[len(shared) :] for word in alike if word != shared]
        rest = f"(?:{_any_of(longer)})" + "?" * (len(longer) < len(alike)) if longer else ""
        yield re.escape(shared) + rest
