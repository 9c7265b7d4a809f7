"""A run trained again: the same bytes, or the largest difference with what was recorded of both trainings."""

import json
from pathlib import Path

import pytest
import torch

from nexttoken.commands import reproduce
from nexttoken.runs.made_with import KEY, code_hash, commit
from support.commands import refusal
from support.finished_runs import damage, unseal, write_finished_fold
from support.training import train, write_sample


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_sample(tmp_path_factory.mktemp("data") / "sample")


@pytest.fixture(scope="module")
def tiny(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    train(folder, "fold=0", "logger=none", f"input_dir={data}")
    return folder / "lmsys" / "tiny"


def test_a_fold_records_code_versions_and_processor(tiny):
    facts = json.loads((tiny / "fold0" / "metrics.json").read_text())[KEY]
    assert facts["torch"] == torch.__version__
    assert facts["code"] == code_hash()
    assert facts["processor"]
    assert "python" in facts


def test_the_commit_is_that_of_the_checkout_of_the_package_alone(tmp_path):
    (tmp_path / "__init__.py").touch()
    assert commit(tmp_path) is None
    assert (own := commit()) is None or len(own.removesuffix("-dirty")) == 40


def test_the_same_machine_gives_the_same_bytes_and_nothing_is_left(tiny, capsys):
    before = sorted(tiny.parent.rglob("*"))
    reproduce.main([str(tiny)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "fold0: the same bytes"
    assert "answers    the same bytes" in lines
    assert sorted(tiny.parent.rglob("*")) == before


def test_the_data_may_lie_in_another_folder(tiny, data, tmp_path, capsys):
    elsewhere = tmp_path / "moved"
    data.rename(elsewhere)
    try:
        assert "input_dir=" in refusal(capsys, "reproduce", tiny)
        reproduce.main([str(tiny), f"input_dir={elsewhere}"])
    finally:
        elsewhere.rename(data)
    assert capsys.readouterr().out.splitlines()[-1] == "fold0: the same bytes"


def test_other_threads_and_versions_are_named_beside_the_largest_difference(tiny, tmp_path, capsys):
    number = torch.get_num_threads()
    unseal(tiny / "fold0")
    path = tiny / "fold0" / "metrics.json"
    saved = json.loads(path.read_text())
    path.write_text(json.dumps(saved | {KEY: saved[KEY] | {"numpy": "1.0"}}))
    table = (tiny / "fold0" / "oof.csv").read_text().splitlines()
    name, fold, label, *_ = table[1].split(",")
    (tiny / "fold0" / "oof.csv").write_text("\n".join([table[0], f"{name},{fold},{label},0.0,0.0,1.0", *table[2:], ""]))
    torch.set_num_threads(2 if number == 1 else 1)
    try:
        with pytest.raises(SystemExit, match="1"):
            reproduce.main([str(tiny), "fold=0", f"out={tmp_path / 'again'}"])
    finally:
        torch.set_num_threads(number)
        path.write_text(json.dumps(saved))
        (tiny / "fold0" / "oof.csv").write_text("\n".join([*table, ""]))
    *_, answers, _, verdict, kept = capsys.readouterr().out.splitlines()
    assert f"of row {name}, by" in answers
    assert "oof.csv" in verdict
    assert "other device (cpu, " in verdict
    assert "other numpy (1.0 -> " in verdict
    assert kept == f"kept: {tmp_path / 'again'}"
    assert (tmp_path / "again" / "lmsys" / "tiny" / "fold0" / "oof.csv").exists()


def test_other_data_is_refused_before_anything_is_trained(tiny, data, capsys):
    path = data / "train.csv"
    whole = path.read_bytes()
    damage(path, whole.replace(b"the", b"a", 1))
    try:
        assert "was trained on other rows than" in refusal(capsys, "reproduce", tiny)
    finally:
        path.write_bytes(whole)
    assert [one.name for one in tiny.parent.iterdir()] == ["tiny"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fold=7"], "fold7 is not finished; train it first: python train.py fold=7"),
        (["fold=x"], "'x' is not accepted; expected numbers such as 0,1, or all"),
        (["fold=0,00"], "'0,00' has a fold twice; give each once, such as 0,1"),
    ],
)
def test_mistakes_are_one_line(tiny, capsys, arguments, words):
    assert words in refusal(capsys, "reproduce", tiny, *arguments)


def test_a_blend_and_an_altered_run_are_refused(tmp_path, capsys):
    write_finished_fold(tmp_path / "both", blend={"members": ["a", "b"]})
    assert "is a blend and has no model of its own" in refusal(capsys, "reproduce", tmp_path / "both")
    fold = write_finished_fold(tmp_path / "average")
    saved = json.loads((fold / "metrics.json").read_text())
    (fold / "metrics.json").write_text(json.dumps(saved | {"averaged": ["a 1", "b 2"]}))
    assert "is an average of adapters" in refusal(capsys, "reproduce", tmp_path / "average")


@pytest.mark.slow
def test_a_training_from_other_weights_is_refused(base_dir, data, tmp_path, capsys):
    from transformers import LlamaForCausalLM

    base = (f"model.name_or_path={base_dir}", "logger=none", f"input_dir={data}")
    train(tmp_path, "fold=0", *base, "adapter=lora")
    train(tmp_path, "fold=0", *base, "name=whole")
    reproduce.main([str(tmp_path / "lmsys" / "tiny")])
    assert capsys.readouterr().out.splitlines()[-1] == "fold0: the same bytes"
    model = LlamaForCausalLM.from_pretrained(base_dir)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.mul_(2.0)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "other").mkdir(exist_ok=True)
        (tmp_path / "other" / name).write_bytes((base_dir / name).read_bytes())
    model.save_pretrained(tmp_path / "other")
    line = refusal(capsys, "reproduce", tmp_path / "lmsys" / "tiny", f"base={tmp_path / 'other'}")
    assert "whose weights are not those of" in line
    line = refusal(capsys, "reproduce", tmp_path / "lmsys" / "whole", f"base={tmp_path / 'other'}")
    assert "was trained from other weights than" in line
