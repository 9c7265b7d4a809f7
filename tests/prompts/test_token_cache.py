"""Tokenised rows from the cache are the rows that would have been made, whatever happened to it."""

import multiprocessing
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nexttoken.prompts import token_cache
from nexttoken.prompts.encode_labels import Encoder
from nexttoken.prompts.encode_texts import TextEncoder
from nexttoken.prompts.prompt import Prompt
from nexttoken.prompts.token_cache import cache_dir, content_key, fingerprint
from nexttoken.types import Example

PROMPT = Prompt("{{ question[0] }} {{ labels | join }}\n", "### Answer\n", ("A", "B", "tie"))
OPEN = Prompt("{{ question[0] }}\n", "### Answer\n")
WORDS = ("Which answer is the better one?", "質問です 🙂", "</s> <|bos|>", "")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An own cache that keeps everything, however short."""
    monkeypatch.setenv("NEXTTOKEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(token_cache, "MIN_CHARACTERS", -1)
    return tmp_path / "cache"


def examples(number: int = 40) -> list[Example]:
    texts = [f"{WORDS[row % 4]} {row}" + " and a long one" * 60 * (row % 7 == 0) for row in range(number)]
    return [Example(str(row), {"question": (text,)}, row % 3, answer=f"It is {row}.") for row, text in enumerate(texts)]


def contents(encoded) -> list:
    own = [(p.id, p.text, p.token_ids.tolist(), p.was_cut, p.round) for p in encoded.prompts]
    learnt = [p.learnt.tolist() for p in encoded.prompts if hasattr(p, "learnt")]
    return [own, learnt, encoded.counts(), encoded.labels]


@pytest.fixture(params=[(Encoder, PROMPT), (TextEncoder, OPEN)], ids=["labels", "texts"])
def encoder(request, scratch):
    kind, prompt = request.param
    return kind(scratch.tokenizer, prompt, 96)


@pytest.fixture
def uncached(encoder, monkeypatch) -> list:
    with monkeypatch.context() as changed:
        changed.setattr(token_cache, "MIN_CHARACTERS", 10**9)
        return contents(encoder.encode(examples()))


def files(cache: Path) -> list[Path]:
    return sorted(cache.glob("tokens/*/*"))


def count_made(encoder, monkeypatch) -> list[int]:
    """The sizes of the chunks that are made from now on."""
    made: list[int] = []
    real = type(encoder)._make

    def counted(self, rows, **options):
        made.append(len(rows))
        return real(self, rows, **options)

    monkeypatch.setattr(type(encoder), "_make", counted)
    return made


def test_rows_come_from_the_cache_and_are_the_same(encoder, uncached, cache, monkeypatch):
    made = count_made(encoder, monkeypatch)
    assert contents(encoder.encode(examples(), chunk=16)) == uncached
    assert sum(made) == 40
    assert contents(encoder.encode(examples())) == uncached
    assert sum(made) == 40, "the second time nothing is tokenised"
    assert len(files(cache)) == 1
    assert uncached[2]["num_truncated"], "cut rows are among them"


def test_only_new_rows_are_tokenised_whatever_their_ids_and_places(encoder, cache, monkeypatch):
    encoder.encode(examples(30))
    made = count_made(encoder, monkeypatch)
    renamed = [replace(one, id=f"new {one.id}", round=1) for one in examples()[::-1]]
    found = encoder.encode([*renamed, renamed[0]])
    assert sum(made) == 10
    assert [p.id for p in found.prompts] == [one.id for one in [*renamed, renamed[0]]]
    assert {p.round for p in found.prompts} == {1}
    assert len(files(cache)) == 2


def test_token_ids_are_views_into_the_map_that_torch_takes_without_a_copy(scratch, recwarn):
    rows = Encoder(scratch.tokenizer, PROMPT, 96).encode(examples()).prompts
    assert not any(row.token_ids.flags.owndata for row in rows)
    assert np.shares_memory(rows[0].token_ids.base, rows[-1].token_ids.base)
    torch.from_numpy(rows[0].token_ids)
    assert not recwarn.list


@pytest.mark.parametrize("damage", ["cut", "row", "table", "empty", "other"])
def test_a_damaged_file_is_made_anew(encoder, uncached, cache, damage):
    encoder.encode(examples())
    (path,) = files(cache)
    content = bytearray(path.read_bytes())
    if damage == "row":
        content[5] ^= 1
    elif damage == "table":
        content[-60] ^= 1
    path.write_bytes({"cut": content[:-9], "empty": b"", "other": b"tokens" * 20}.get(damage, content))
    assert contents(encoder.encode(examples())) == uncached
    assert contents(encoder.encode(examples())) == uncached


def test_without_a_folder_rows_are_held_in_memory(encoder, uncached, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NEXTTOKEN_CACHE", str(tmp_path / "file" / "cache"))
    assert contents(encoder.encode(examples())) == uncached
    assert "tokens are not cached" in capsys.readouterr().out


def test_few_characters_are_not_worth_a_file(scratch, cache, monkeypatch):
    monkeypatch.setattr(token_cache, "MIN_CHARACTERS", 10_000)
    Encoder(scratch.tokenizer, PROMPT, 96).encode(examples())
    assert not files(cache)


def test_the_oldest_go_when_the_cache_is_full(scratch, cache, monkeypatch):
    encoder, other = (Encoder(scratch.tokenizer, PROMPT, size) for size in (96, 80))
    encoder.encode(examples())
    (old,) = files(cache)
    os.utime(old, (1, 1))
    kept = encoder.encode(examples())  # which makes it the youngest
    assert old.stat().st_mtime > 1
    os.utime(old, (1, 1))
    monkeypatch.setattr(token_cache, "MAX_BYTES", 100)
    other.encode(examples())
    assert old not in files(cache)
    assert len(files(cache)) == 1
    assert kept.prompts[3].text, "what is mapped lives on"


def test_whatever_a_row_depends_on_changes_its_place(scratch, stories):
    def of(tokenizer=scratch.tokenizer, prompt=PROMPT, size=96, form="") -> str:
        return fingerprint(Encoder(tokenizer, prompt, size), form)

    others = [of(stories.tokenizer), of(prompt=replace(PROMPT, answer_cue="So: ")), of(size=97), of(form="x")]
    assert len({of(), *others}) == 5
    assert of() == of()


def test_whatever_is_shown_changes_the_key():
    one = examples(1)[0]
    shown = Example("s", {"question": ("q",)}, 1)
    others = [
        replace(one, fields={"question": ("x",)}),
        replace(one, fields={"question": one.fields["question"], "b": ()}),
        replace(one, answer="x"),
        replace(one, demonstrations=(shown,)),
        replace(one, demonstrations=(replace(shown, label=2),)),
        replace(one, demonstrations=(shown, shown)),
    ]
    assert len({content_key(other) for other in [one, *others]}) == 7
    assert content_key(one) == content_key(replace(one, id="other", round=2, tags={"genre": "x"}))


def encode_there(tokenizer, folder: str, together) -> None:
    os.environ["NEXTTOKEN_CACHE"] = folder
    token_cache.MIN_CHARACTERS = -1
    together.wait()
    Encoder(tokenizer, PROMPT, 96).encode(examples(200))


def test_processes_that_write_the_same_rows_at_once_leave_one_file(scratch, cache):
    context = multiprocessing.get_context("fork")
    together = context.Barrier(3)
    arguments = (scratch.tokenizer, str(cache), together)
    processes = [context.Process(target=encode_there, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert [path.suffix for path in files(cache)] == [".tokens"]


def test_the_folder_is_the_users(monkeypatch, tmp_path):
    monkeypatch.delenv("NEXTTOKEN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "nexttoken"


def test_in_memory_the_latest_rows_are_made_once_and_no_file_is_written(encoder, uncached, cache, monkeypatch):
    made, given = count_made(encoder, monkeypatch), examples()
    with token_cache.tokens_in_memory():
        assert contents(encoder.encode(given)) == contents(encoder.encode(list(given))) == uncached
        assert sum(made) == len(given)
        encoder.encode(given[1:])
        encoder.encode(given)
        assert sum(made) == 3 * len(given) - 1, "only the latest rows stay in memory"
    assert not files(cache)
    encoder.encode(given)
    assert files(cache)
