"""Mutations of a file as disks, editors, downloads and strangers make them; seeded, so that each comes again."""

import gzip
import json
import random
from collections.abc import Callable
from typing import Any

MAGIC = [
    *(b"PK\x03\x04", b"PAR1", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"BZh91AY&SY", b"\xfd7zXZ\0", b"\x93NUMPY\x01\x00"),
    *(
        b"version https://git-lfs.github.com/spec/v1\n",
        b"<!DOCTYPE html><html>",
        b"\xff\xfe",
        b"\xfe\xff",
        b"\xef\xbb\xbf",
    ),
    *(b"\x80\x04\x95", b"%PDF-1.4\n", b"SQLite format 3\0"),
]
CONTROLS = [
    *(bytes([number]) for number in (*range(32), 127, 0x85, 0xFF)),
    b"\r\n",
    b"\r",
    "\u2028".encode(),
    "\ufeff".encode(),
]
SURROGATES = [rb"\ud83d", rb"\udc00\ud800", "\ud800".encode("utf-8", "surrogatepass")]
HUGE = [
    b"1e999",
    b"-1e999",
    b"9" * 30,
    b"9" * 5_000,
    b"0x10",
    b"NaN",
    b"-Infinity",
    b"1e-400",
    b"-1",
    b"9223372036854775808",
]
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1.5, 10**30, float("nan"), float("inf"), "", " ", "x", "\ud800", "\0", "a\nb"),
    *([], {}, [[]], [None], [1], ["x"], {"x": 1}, {"_target_": "os.system"}),
]
KEYS = ["", "id", "text", "messages", "output", "answer", "options", "__class__", "\ud800", "x" * 999]

Mutation = Callable[[random.Random, bytes], bytes]


def place(rng: random.Random, data: bytes) -> int:
    return rng.randrange(len(data) + 1)


def flip_bits(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(rng: random.Random, data: bytes) -> bytes:
    return data[: place(rng, data)]


def cut_out(rng: random.Random, data: bytes) -> bytes:
    first, last = sorted((place(rng, data), place(rng, data)))
    return data[:first] + data[last:]


def insert(*pieces: bytes) -> Mutation:
    def mutate(rng: random.Random, data: bytes) -> bytes:
        at = place(rng, data)
        return data[:at] + rng.choice(pieces) * rng.choice((1, 1, 3)) + data[at:]

    return mutate


def begin_otherwise(rng: random.Random, data: bytes) -> bytes:
    return rng.choice(MAGIC) + (data if rng.random() < 0.5 else data[rng.randrange(1, 9) :])


def swap_lines(rng: random.Random, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    rng.shuffle(lines)
    return b"".join(lines)


def repeat_line(rng: random.Random, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True) or [b""]
    return b"".join([*lines, rng.choice(lines) * rng.choice((1, 2))])


def drop_line(rng: random.Random, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    del lines[rng.randrange(len(lines)) if lines else 0 :][:1]
    return b"".join(lines)


def nest(rng: random.Random, data: bytes) -> bytes:
    deep, at = rng.choice((50, 2_000, 100_000)), place(rng, data)
    opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"- ", b""), (b"a: {", b"}")))
    middle = opening * deep + b"1" + closing * rng.choice((0, deep))
    return rng.choice((middle, data[:at] + middle + data[at:]))


def encode_otherwise(rng: random.Random, data: bytes) -> bytes:
    encoding = rng.choice(("utf-16", "utf-16le", "utf-32", "cp1252", "cp932", "euc-jp", "utf-7"))
    return data.decode(errors="replace").encode(encoding, errors="replace")


def empty(rng: random.Random, data: bytes) -> bytes:
    return rng.choice((b"", b"\n", b" \n \n", b"\0" * 40, b"{}", b"[]", b"null", b"\xef\xbb\xbf"))


def pack(rng: random.Random, data: bytes) -> bytes:
    packed = gzip.compress(data, mtime=0)
    return rng.choice(
        (packed, gzip.compress(packed, mtime=0), packed[: rng.randrange(len(packed))], flip_bits(rng, packed))
    )


def lengthen(rng: random.Random, data: bytes) -> bytes:
    at = place(rng, data)
    return (
        data[:at]
        + rng.choice((b"a", b"[", b'"', b"\\", b",", b"1", "ｶ".encode())) * rng.choice((300, 200_000))
        + data[at:]
    )


def change_value(rng: random.Random, data: bytes) -> bytes:
    """Change a key or a value of a JSON document, or of a line of it; flip bits where there is none."""
    lines = data.splitlines() or [b""]
    whole, number = rng.random() < 0.5, rng.randrange(len(lines))
    try:
        value = json.loads(data if whole else lines[number])
    except (ValueError, RecursionError):
        return flip_bits(rng, data)
    value = _changed(rng, value)
    line = json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    return line if whole else b"\n".join([*lines[:number], line, *lines[number + 1 :]])


def _changed(rng: random.Random, value: Any) -> Any:
    if not value or not isinstance(value, dict | list) or rng.random() < 0.2:
        return rng.choice(VALUES)
    if isinstance(value, list):
        at = rng.randrange(len(value))
        return [*value[:at], _changed(rng, value[at]), *value[at + 1 :]] if rng.random() < 0.8 else value * 2
    key = rng.choice([*value])
    match rng.randrange(4):
        case 0:
            return {name: one for name, one in value.items() if name != key}
        case 1:
            return {(rng.choice(KEYS) if name == key else name): one for name, one in value.items()}
    return {name: _changed(rng, one) if name == key else one for name, one in value.items()}


MUTATIONS: list[Mutation] = [
    *(
        flip_bits,
        flip_bits,
        cut,
        cut_out,
        insert(*CONTROLS),
        insert(*SURROGATES),
        insert(*HUGE),
        insert(*b'",{}[]:\\\n\t'.split()),
    ),
    *(
        insert(b'"', b",", b"\n", b"\\", b"{", b"]", b":", b"\t", b"\r"),
        begin_otherwise,
        swap_lines,
        repeat_line,
        drop_line,
    ),
    *(nest, encode_otherwise, empty, pack, lengthen, change_value, change_value, change_value, change_value),
]


def mutated(rng: random.Random, data: bytes) -> bytes:
    """Return the bytes after one to three mutations."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(MUTATIONS)(rng, data)
    return data
