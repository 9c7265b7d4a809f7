"""Tokens as bytes: stop texts, banned texts and cut characters are found in what was written, not in one spelling."""

import codecs
import json
import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from nexttoken.errors import UserError

BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
ANCHOR = "abc"  # text before a token: the first token of a text may lose its space


class Vocabulary:
    """The bytes that each token stands for; special tokens and ids without a token stand for none."""

    def __init__(self, tokenizer: Any) -> None:
        backend = tokenizer.backend_tokenizer
        self._decode = backend.decoder.decode if backend.decoder else "".join
        kinds = _types(json.loads(backend.to_str())["decoder"])
        self._letters = byte_letters() if "ByteLevel" in kinds else {}
        self._has_byte_tokens = "ByteFallback" in kinds
        self._anchor = tokenizer.convert_ids_to_tokens(tokenizer(ANCHOR, add_special_tokens=False)["input_ids"])
        self._opening = len(self._decode(self._anchor))
        added = tokenizer.added_tokens_decoder.items()  # more are special than have a name
        special = {id for id, token in added if token.special}.union(tokenizer.all_special_ids)
        tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        self.tokens = [b"" if id in special or token is None else self._bytes(token) for id, token in enumerate(tokens)]

    def _bytes(self, token: str) -> bytes:
        if self._letters and all(letter in self._letters for letter in token):
            return bytes(self._letters[letter] for letter in token)
        if self._has_byte_tokens and (byte := BYTE.fullmatch(token)):
            return bytes([int(byte[1], 16)])
        return self._decode([*self._anchor, token])[self._opening :].encode()

    def join(self, token_ids: Sequence[int]) -> bytes:
        return b"".join(self.tokens[id] for id in token_ids if id < len(self.tokens))


class Answers:
    """The bytes that every row of a batch has written so far, beginning at column `width` of its ids."""

    def __init__(self, vocabulary: Vocabulary, width: int) -> None:
        self._vocabulary, self.width, self._seen = vocabulary, width, width
        self.written: list[bytes] = []
        self.num_last: list[int] = []  # bytes of the newest token

    def read(self, input_ids: Tensor) -> None:
        """Take in the columns of `input_ids` (N, T) that were not there at the last call."""
        self.written = self.written or [b""] * len(input_ids)
        news = [self._vocabulary.join(row) for row in input_ids[:, self._seen :].tolist()]
        if self._seen < input_ids.shape[1]:
            self.num_last = [len(new) for new in news]
        self.written = [old + new for old, new in zip(self.written, news, strict=True)]
        self._seen = input_ids.shape[1]


def text_of(written: bytes) -> str:
    """The text of an answer; a last character whose bytes are not all there is left out, other strays become U+FFFD."""
    return codecs.getincrementaldecoder("utf-8")("replace").decode(written, final=False)


def encoded(texts: Sequence[str], key: str) -> list[bytes]:
    """Texts that are looked for in answers. Raises UserError for an empty one, which every answer holds."""
    if "" in texts:
        raise UserError(f"{key} holds an empty text, which is part of every answer; expected texts to look for")
    return [text.encode("utf-8", "surrogatepass") for text in dict.fromkeys(texts)]


def byte_letters() -> dict[str, int]:
    """The byte that each letter of a byte-level BPE stands for (Radford et al. 2019).

    Printable bytes of Latin-1 are themselves; the 68 others take, in their order, the letters from U+0100 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


def _types(decoder: Any) -> set[str]:
    """The names of a decoder and of all that it is made of."""
    if isinstance(decoder, dict):
        return {decoder.get("type", "")}.union(*(_types(value) for value in decoder.values()))
    return set().union(*(_types(value) for value in decoder)) if isinstance(decoder, list) else set()
