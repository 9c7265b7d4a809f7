"""A generation that was killed at any moment and started again neither repeats a row nor loses one."""

import json
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nexttoken.engine.generation.writer import GeneratedText, GenerationPrompt, generate
from nexttoken.engine.journal import Journal
from nexttoken.errors import UserError
from nexttoken.settings import GenerationSettings
from support.interrupted import killing

NUM_ROWS = 9
SETTINGS = {"max_new_tokens": 6, "temperature": 1.0, "seed": 3}
KEYS = ["key", "id", "output", "num_tokens", "finished", "seconds"]


def rows(num_rows: int = NUM_ROWS) -> list[GenerationPrompt]:
    """Of 3 lengths and with ids that a file may have; in no order of length."""
    ids = [f"{number:03}" if number % 2 else f"質問 {number}\ud83d" for number in range(num_rows)]
    return [GenerationPrompt(id, np.arange(5, 8 + 4 * (n % 3), dtype=np.int32)) for n, id in enumerate(ids)]


def write_and_die(base_dir: str, journal: str, moment: str, number: int) -> None:
    """Generate with the small model; SIGKILL this process at the `number`-th `moment`."""
    import torch

    torch.set_num_threads(1)
    die_at(moment, number)
    write(Path(base_dir), Path(journal))


def write(base_dir: Path, journal: Path) -> tuple[dict[str, str], list[str]]:
    """Generate with the small model, a few rows a batch: the texts by id, and the ids that the model was asked for."""
    from nexttoken.engine.generation.transformers import TransformersGenerator
    from nexttoken.models.load import load_model, load_tokenizer
    from nexttoken.settings import ModelSettings

    settings = ModelSettings(name_or_path=str(base_dir))
    tokenizer = load_tokenizer(settings, [])
    generator = TransformersGenerator(load_model(settings, tokenizer, 128), tokenizer, 60, [tokenizer.eos_token_id])
    asked = watch(generator)
    result = generate(generator, rows(), GenerationSettings(**SETTINGS), journal, "base")
    return dict(zip(result.ids, result.texts, strict=True)), asked


def watch(generator: Any) -> list[str]:
    """The ids of the rows that the generator is asked for, in a list that grows."""
    asked: list[str] = []
    real = generator.write

    def watched(prompts: Sequence[GenerationPrompt], settings: GenerationSettings) -> Iterator[GeneratedText]:
        asked.extend(prompt.id for prompt in prompts)
        return real(prompts, settings)

    generator.write = watched
    return asked


def die_at(moment: str, number: int) -> None:
    from nexttoken.engine.generation import transformers

    places: dict[str, tuple[Any, str]] = {
        "batch": (transformers.TransformersGenerator, "_write_batch"),  # before its rows are written
        "line": (os, "fsync"),  # the line is flushed, the row not yet counted; the first is the head
        "between": (Journal, "add"),
        "torn": (Journal, "_append"),  # in the middle of a line
    }
    if moment == "torn":
        Journal._append = tearing(Journal._append, number)
    elif moment in places:
        owner, name = places[moment]
        setattr(owner, name, killing(getattr(owner, name), number))


def tearing(append: Any, number: int) -> Any:
    calls = 0

    def torn(self: Journal, line: dict) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            content = json.dumps(line).encode()
            os.write(self._file.fileno(), content[: len(content) * 2 // 3])
            os.kill(os.getpid(), signal.SIGKILL)
        append(self, line)

    return torn


@pytest.fixture(scope="module")
def run(base_dir):
    """Run `write_and_die` in a process of its own; returns its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["nexttoken.engine.generation.transformers", "transformers.models.llama.modeling_llama"]
    )

    def start(*arguments: Any) -> int | None:
        process = context.Process(target=write_and_die, args=(str(base_dir), *arguments))
        process.start()
        process.join()
        return process.exitcode

    return start


@pytest.fixture(scope="module")
def uninterrupted(base_dir, tmp_path_factory) -> dict[str, str]:
    texts, asked = write(base_dir, tmp_path_factory.mktemp("whole") / "journal.jsonl")
    assert asked == [row.id for row in rows()]
    return texts


MOMENTS = [("batch", 1), ("batch", 3), ("line", 1), ("line", 2), ("line", 10), ("between", 5), ("torn", 1), ("torn", 6)]


@pytest.mark.slow
@pytest.mark.parametrize(("moment", "number"), MOMENTS)
def test_a_killed_generation_neither_repeats_nor_loses_a_row(run, base_dir, uninterrupted, tmp_path, moment, number):
    journal = tmp_path / "journal.jsonl"
    assert run(str(journal), moment, number) == -signal.SIGKILL
    before = journal.read_bytes().split(b"\n")[:-1][1:] if journal.exists() else []
    texts, asked = write(base_dir, journal)
    assert texts == uninterrupted
    assert list(texts) == [row.id for row in rows()], "in the order of the prompts"
    done = {json.loads(line)["id"] for line in before}
    assert set(asked) == {row.id for row in rows()} - done
    assert len(asked) == NUM_ROWS - len(done)
    lines = journal.read_bytes().splitlines()[1:]
    assert lines[: len(before)] == before, "what was there stays as it was"
    assert len(lines) == len({json.loads(line)["key"] for line in lines}) == NUM_ROWS
    assert all(list(json.loads(line)) == KEYS for line in lines)


@pytest.mark.slow
def test_the_killed_ones_were_killed_where_they_should(run, tmp_path):
    """Half-way through the rows; a torn line is in the file."""
    assert run(str(tmp_path / "a"), "line", 6) == -signal.SIGKILL
    assert len((tmp_path / "a").read_bytes().splitlines()) == 6
    assert run(str(tmp_path / "b"), "torn", 6) == -signal.SIGKILL
    assert not (tmp_path / "b").read_bytes().endswith(b"\n")


class Counting:
    """An engine that writes how many tokens a prompt has, and remembers for whom."""

    def __init__(self, lost: str = "") -> None:
        self.asked: list[str] = []
        self.lost = lost

    def write(self, prompts: Sequence[GenerationPrompt], settings: GenerationSettings) -> Iterator[GeneratedText]:
        for prompt in sorted(prompts, key=lambda prompt: -len(prompt.token_ids)):
            self.asked.append(prompt.id)
            if prompt.id != self.lost:
                yield GeneratedText(
                    prompt.id, f"{len(prompt.token_ids)} \u2028 '\"\n質", len(prompt.token_ids), True, 0.5
                )


def write_counting(path: Path | None, prompts, identity: str = "m", **settings) -> tuple[Any, list[str]]:
    engine = Counting()
    return generate(engine, prompts, GenerationSettings(**settings), path, identity), engine.asked


def test_answers_are_in_the_order_of_the_prompts(tmp_path):
    for path in (None, tmp_path / "deep" / "j.jsonl"):
        result, _ = write_counting(path, rows())
        assert result.ids == tuple(row.id for row in rows())
        assert result.columns["num_tokens"].tolist() == [len(row.token_ids) for row in rows()]
        assert result.texts[1] == "7 \u2028 '\"\n質"
        assert result.columns["finished"].dtype == bool
        assert result.columns["seconds"].tolist() == [0.5] * NUM_ROWS
    again, asked = write_counting(tmp_path / "deep" / "j.jsonl", rows())
    assert asked == []
    assert (again.ids, again.texts) == (result.ids, result.texts)
    empty, _ = write_counting(None, [])
    assert (empty.ids, empty.columns["num_tokens"].shape) == ((), (0,))


def test_changed_and_new_prompts_are_written_others_are_not(tmp_path):
    path = tmp_path / "j.jsonl"
    write_counting(path, rows())
    changed = rows(NUM_ROWS + 1)
    changed[4] = GenerationPrompt(changed[4].id, changed[4].token_ids[1:])
    result, asked = write_counting(path, changed)
    assert sorted(asked) == sorted([changed[4].id, changed[9].id])
    assert result.columns["num_tokens"].tolist() == [len(row.token_ids) for row in changed]
    assert changed[4].key != rows()[4].key


def test_a_journal_of_something_else_is_refused(tmp_path):
    path = tmp_path / "j.jsonl"
    write_counting(path, rows())
    content = path.read_bytes()
    with pytest.raises(
        UserError, match=r"settings.temperature 0.0 -> 0.5; settings.stop \[\] -> \[.a.\]\); use the same"
    ):
        write_counting(path, rows(), temperature=0.5, stop=["a"])
    with pytest.raises(UserError, match=r'answers of other settings .model "m" -> "other"'):
        write_counting(path, rows(), identity="other")
    assert path.read_bytes() == content
    for foreign in (b"id,text\n1,a\n", b"id,text", b"[]\n"):
        path.write_bytes(foreign)
        with pytest.raises(UserError, match="is not a journal"):
            write_counting(path, rows())
        assert path.read_bytes() == foreign


@pytest.mark.parametrize("length", range(1, 60, 7))
def test_a_torn_head_is_written_anew(tmp_path, length):
    path = tmp_path / "j.jsonl"
    write_counting(path, rows())
    content = path.read_bytes()
    path.write_bytes(content[:length])
    assert len(write_counting(path, rows())[1]) == NUM_ROWS
    assert path.read_bytes() == content


def test_unreadable_lines_are_named_and_their_rows_written_anew(tmp_path, capsys):
    path = tmp_path / "j.jsonl"
    write_counting(path, rows())
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2], lines[4] = b"\0" * 20 + b"\n", b'{"key": "x", "id": "y"}\n'
    path.write_bytes(b"".join(lines))
    result, asked = write_counting(path, rows())
    assert len(asked) == 2
    assert "2 lines cannot be read (3, 5)" in capsys.readouterr().out
    assert result.texts == write_counting(None, rows())[0].texts


def test_two_at_once_do_not_cut_off_each_others_rows(tmp_path):
    path, rows = tmp_path / "journal.jsonl", [GeneratedText(id, "x", 1, True, 0.1) for id in "abcd"]
    with Journal(path, {"a": 1}, GeneratedText) as first, Journal(path, {"a": 1}, GeneratedText) as second:
        first.add("a", rows[0])
        with pytest.raises(UserError, match="is being written by another process"):
            second.add("b", rows[1])
        first.add("c", rows[2])
    with Journal(path, {"a": 1}, GeneratedText) as third, Journal(path, {"a": 1}, GeneratedText) as late:
        third.add("d", rows[3])
        third.__exit__(None, None, None)  # it has ended before the other one begins to write
        with pytest.raises(UserError, match="is being written by another process"):
            late.add("b", rows[1])
    with Journal(path, {"a": 1}, GeneratedText) as again:
        assert sorted(again.rows) == ["a", "c", "d"]


def test_rows_that_an_engine_loses_and_ids_that_are_there_twice_are_named():
    with pytest.raises(UserError, match=r"no answer to 1 rows \(001\)"):
        generate(Counting(lost="001"), rows(), GenerationSettings())
    with pytest.raises(UserError, match=r"1 ids are there twice \(001\)"):
        generate(Counting(), [*rows(), rows()[1]], GenerationSettings())


def test_more_than_one_process_is_refused(monkeypatch):
    """They would write the same rows into the same file."""
    monkeypatch.setattr("nexttoken.engine.generation.writer.num_ranks", lambda: 2)
    with pytest.raises(UserError, match="one process, not 2; use devices=1"):
        generate(Counting(), rows(), GenerationSettings())
