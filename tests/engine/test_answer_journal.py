"""Label probabilities that were found before a kill are found again, to the last bit, and nobody else's are."""

import json
from pathlib import Path

import numpy as np
import pytest

from nexttoken.engine.heads import LabelHead, LabelSoftmax
from nexttoken.engine.journal import JournalFolder
from nexttoken.engine.label_answerer import LabelAnswerer
from nexttoken.prompts.encode_labels import Encoder
from nexttoken.prompts.prompt import Prompt
from nexttoken.types import Example

PROMPT = Prompt("{{ question[0] }}\n", "### Answer\n", ("A", "B", "tie"))
EXAMPLES = [Example(f"{row:03}", {"question": ("which one? " * (row % 9) + str(row),)}) for row in range(40)]


class Killed(Exception):
    """Stands for the end of a process."""


class Counting(LabelSoftmax):
    """The shipped head, which counts its batches and may end in the middle."""

    def __init__(self, last: int = 1000) -> None:
        self.num_batches, self.last = 0, last

    def scores(self, *arguments):
        self.num_batches += 1
        if self.num_batches > self.last:
            raise Killed
        return super().scores(*arguments)


def answerer(scratch, folder: Path | None, head: LabelHead, made_by: str = "fold 0") -> LabelAnswerer:
    encoder = Encoder(scratch.tokenizer, PROMPT, 256)
    labels = encoder.encode(EXAMPLES[:1]).labels
    made = LabelAnswerer(scratch.model, head, encoder, labels, 256)
    made.journals = JournalFolder(folder, made_by)
    return made


@pytest.fixture
def whole(scratch):
    head = Counting()
    return answerer(scratch, None, head)(EXAMPLES), head.num_batches


def lines(folder: Path) -> list[dict]:
    (path,) = folder.iterdir()
    return [json.loads(line) for line in path.read_text().splitlines()][1:]


def test_a_prediction_goes_on_where_it_stopped(scratch, whole, tmp_path, capsys):
    undisturbed, num_batches = whole
    with pytest.raises(Killed):
        answerer(scratch, tmp_path, Counting(3))(EXAMPLES)
    done = lines(tmp_path)
    head = Counting()
    found = answerer(scratch, tmp_path, head)(EXAMPLES)
    assert found.ids == undisturbed.ids
    assert (found.probs == undisturbed.probs).all()
    assert head.num_batches == num_batches - 3
    assert f"{len(done)} rows were answered before" in capsys.readouterr().out
    seconds = dict(zip(found.ids, found.columns["seconds"], strict=True))
    assert all(seconds[line["id"]] >= line["seconds"] > 0 for line in done), "the time that they took, then"
    assert len(lines(tmp_path)) == len(EXAMPLES)


def test_a_finished_one_asks_nothing_again(scratch, whole, tmp_path):
    answerer(scratch, tmp_path, Counting())(EXAMPLES)
    again = answerer(scratch, tmp_path, Counting(0))(EXAMPLES)
    assert (again.probs == whole[0].probs).all()


@pytest.mark.parametrize("damage", ["torn", "broken", "no number", "not finite"])
def test_a_line_that_cannot_be_read_is_asked_again(scratch, whole, tmp_path, damage):
    answerer(scratch, tmp_path, Counting())(EXAMPLES)
    (path,) = tmp_path.iterdir()
    content = path.read_text().splitlines(keepends=True)
    line = json.loads(content[5])
    changed = {"broken": "{\n", "no number": json.dumps(line | {"probs": ["x"]}) + "\n"}
    changed["not finite"] = json.dumps(line | {"probs": [float("nan")] * 3}) + "\n"
    content[5] = changed.get(damage, content[5])
    path.write_text("".join(content)[: -9 if damage == "torn" else None])
    head = Counting()
    assert (answerer(scratch, tmp_path, head)(EXAMPLES).probs == whole[0].probs).all()
    assert head.num_batches == 1


def test_another_model_has_another_journal(scratch, tmp_path):
    answerer(scratch, tmp_path, Counting())(EXAMPLES)
    head = Counting()
    answerer(scratch, tmp_path, head, "fold 1")(EXAMPLES)
    assert head.num_batches
    assert len(list(tmp_path.iterdir())) == 2


def test_rows_are_known_by_what_is_read_not_by_their_place(scratch, tmp_path):
    answerer(scratch, tmp_path, Counting())(EXAMPLES)
    straight = answerer(scratch, tmp_path, Counting(0))(EXAMPLES[::-1])
    assert straight.ids == tuple(one.id for one in EXAMPLES[::-1])
    fewer = [Example(one.id, one.fields, num_options=2) for one in EXAMPLES]
    head = Counting()
    found = answerer(scratch, tmp_path, head)(fewer)
    assert head.num_batches, "fewer options are another question"
    assert (found.probs[:, 2] == 0).all()


def test_a_batch_that_is_known_in_part_is_asked_as_a_whole_and_keeps_what_it_said_first(scratch, tmp_path):
    """So that the same rows never have two answers, whenever the prediction was killed."""
    first = answerer(scratch, tmp_path, Counting())(EXAMPLES[:30])
    found = answerer(scratch, tmp_path, Counting())(EXAMPLES)
    assert (found.probs[:30] == first.probs).all()
    again = answerer(scratch, tmp_path, Counting(0))(EXAMPLES)
    assert (found.probs == again.probs).all()


def test_keeping_costs_no_more_than_a_sync_a_second(scratch, tmp_path, monkeypatch):
    from nexttoken.engine import journal

    synced = []
    monkeypatch.setattr(journal.os, "fsync", synced.append)
    answerer(scratch, tmp_path, Counting())(EXAMPLES)
    assert len(synced) <= 2


def test_nothing_is_kept_unless_a_place_is_given(scratch, whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    head = Counting()
    assert np.isfinite(answerer(scratch, None, head)(EXAMPLES).probs).all()
    assert head.num_batches == whole[1]
    assert not list(tmp_path.iterdir())
