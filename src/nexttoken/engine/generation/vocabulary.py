"""The bytes of tokens: stop texts and banned texts are searched in bytes, so their tokenization does not matter."""

import codecs
import json
import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from nexttoken.errors import UserError

BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
ANCHOR = "abc"  # decoded before each token, since the first token of a text may lose its space


class Vocabulary:
    """`tokens`: the bytes of each token id; empty for special tokens and for ids without a token."""

    def __init__(self, tokenizer: Any) -> None:
        backend = tokenizer.backend_tokenizer
        self._decode = backend.decoder.decode if backend.decoder else "".join
        kinds = _types(json.loads(backend.to_str())["decoder"])
        self._letters = byte_letters() if "ByteLevel" in kinds else {}
        self._has_byte_tokens = "ByteFallback" in kinds
        self._anchor = tokenizer.convert_ids_to_tokens(tokenizer(ANCHOR, add_special_tokens=False)["input_ids"])
        self._opening = len(self._decode(self._anchor))
        added = tokenizer.added_tokens_decoder.items()  # not all special tokens are in all_special_ids
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


class GeneratedBytes:
    """The bytes of each row's answer so far, in `written`; answers begin at column `width` of the token ids."""

    def __init__(self, vocabulary: Vocabulary, width: int) -> None:
        self._vocabulary, self.width, self._seen = vocabulary, width, width
        self.written: list[bytes] = []
        self.num_last: list[int] = []  # bytes of each row's newest token

    def update(self, input_ids: Tensor) -> None:
        """Append the columns of `input_ids` (N, T) that are new since the last call."""
        if self.written and self._seen == input_ids.shape[1]:
            return
        news = [self._vocabulary.join(row) for row in input_ids[:, self._seen :].tolist()]
        self.num_last = list(map(len, news))
        self.written = [old + new for old, new in zip(self.written or [b""] * len(news), news, strict=True)]
        self._seen = input_ids.shape[1]


def decode_bytes(written: bytes) -> str:
    """The text of an answer; an incomplete last character is dropped, other invalid bytes become U+FFFD."""
    return codecs.getincrementaldecoder("utf-8")("replace").decode(written, final=False)


def encode_texts(texts: Sequence[str], key: str) -> list[bytes]:
    """UTF-8 bytes of the texts under the setting `key`. Raises UserError for an empty text."""
    if "" in texts:
        raise UserError(f"{key} holds an empty text, which is part of every answer; expected texts to search for")
    return [text.encode("utf-8", "surrogatepass") for text in dict.fromkeys(texts)]


def byte_letters() -> dict[str, int]:
    """The byte of each letter of a byte-level BPE (Radford et al. 2019).

    Printable Latin-1 bytes have their usual letters; the 68 others have, in order, the letters from U+0100.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


def _types(decoder: Any) -> set[str]:
    """Type names of a decoder and of all its parts."""
    if isinstance(decoder, dict):
        return {decoder.get("type", "")}.union(*(_types(value) for value in decoder.values()))
    return set().union(*(_types(value) for value in decoder)) if isinstance(decoder, list) else set()
