"""The prompts on the page are those that training makes, in pieces, and they are made without torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.page_runs import write_sample_run
from nexttoken.build import build
from nexttoken.prompts.encode_labels import Encoder
from nexttoken.report.page.row_prompts import CUT, SPECIAL, TEXT, pieces_of, read_prompts
from nexttoken.runs.folder import RunFolder
from nexttoken.runs.load import load
from nexttoken.types import Example
from support.composed import composed


def joined(pieces):
    return "".join(text for kind, text in pieces if kind == TEXT)


@pytest.fixture(scope="module")
def run(tmp_path_factory, scratch) -> Path:
    """A run of two folds with a tokenizer, whose prompts are too short for the longer rows."""
    path = tmp_path_factory.mktemp("runs") / "one"
    write_sample_run(path, "task=lmsys", num_folds=2, changes=("max_tokens=230",))
    for fold in ("fold0", "fold1"):
        scratch.tokenizer.save_pretrained(path / fold / "model")
    return path


def test_prompts_are_those_that_training_makes(run, scratch):
    loaded = load(RunFolder(run))
    examples = [one for fold in loaded.folds for one in loaded.held_out(fold)[:40]]
    found, reason = read_prompts(loaded, {one.id for one in examples})
    expected = Encoder(scratch.tokenizer, loaded.parts.prompt, 230).encode(examples)
    assert reason == ""
    assert found.keys() == {one.id for one in examples}
    assert {found[one.id].was_cut for one in expected.prompts} == {True, False}
    for one in expected.prompts:
        assert joined(found[one.id].pieces) == one.text
        assert found[one.id].num_tokens == len(one.token_ids) + expected.labels.num_rejoined
        assert any(kind == CUT for kind, _ in found[one.id].pieces) == one.was_cut


def test_a_cut_is_marked_where_the_text_was_taken_out(scratch):
    parts = build(composed("task=lmsys", "max_tokens=120"))
    words = " ".join(f"word{number}" for number in range(200))
    whole = Example("1", {"prompt": ("Which?",), "response_a": (words,), "response_b": ("short",)})
    encoder = Encoder(scratch.tokenizer, parts.prompt, 120)
    (fitted,) = encoder.fit_all([whole], [encoder.limit])
    pieces = pieces_of(fitted, whole, encoder)
    place = [kind for kind, _ in pieces].index(CUT)
    lost = len(words) - len(fitted.example.fields["response_a"][0])
    assert pieces[place] == (CUT, f"{lost:,} characters of response_a cut")
    assert pieces[place - 1][1].endswith("### A\n")
    assert words.endswith(pieces[place + 1][1].partition("\n")[0])


def test_control_tokens_stand_apart_and_those_of_the_data_are_broken(scratch):
    parts, bos = build(composed("task=lmsys")), scratch.tokenizer.bos_token
    example = Example("1", {"prompt": (f"Say {bos}",), "response_a": ("a",), "response_b": ("b",)})
    encoder = Encoder(scratch.tokenizer, parts.prompt, 400)
    (fitted,) = encoder.fit_all([example], [400])
    pieces = pieces_of(fitted, example, encoder)
    assert [text for kind, text in pieces if kind == SPECIAL] == [bos]
    assert f"Say {bos[0]}⟨U+200B⟩{bos[1:]}" in joined(pieces)


@pytest.mark.slow
def test_the_page_is_made_without_torch(run, tmp_path):
    script = (
        "import sys\n"
        "from nexttoken.commands.page import main\n"
        "if __name__ == '__main__':\n"
        f"    main([{str(run)!r}, {f'out={tmp_path}/page.html'!r}])\n"
        "    print('torch' in sys.modules)\n"
    )
    (tmp_path / "make_page.py").write_text(script, encoding="utf-8")
    done = subprocess.run([sys.executable, tmp_path / "make_page.py"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert "What the model read" in (tmp_path / "page.html").read_text(encoding="utf-8")
