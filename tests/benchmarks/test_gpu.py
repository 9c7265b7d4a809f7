"""The GPU benchmark, rehearsed whole on the CPU with a tiny model, and its arithmetic against cases done by hand."""

import json
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest
import torch
import yaml

from benchmarks import gpu, gpu_cases
from benchmarks.gpu import make_record, read_records, table
from benchmarks.gpu_cases import Case, Failure, Speed
from benchmarks.shapes import SHAPES, TokenCost, body_parameters, row_lengths, token_cost
from nexttoken.errors import UserError
from support.model_shapes import SHAPES as PUBLISHED

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
COMMON = {"work", "peer", "precision", "ratio", "ratio_min", "ratio_max", "memory_ratio", "versions"}
ASKED = ["shape=tiny", "tokens=32", "rows=2", "steps=2", "batch_tokens=32"]


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory):
    out = tmp_path_factory.mktemp("rehearsal") / "gpu.json"
    out.write_text(json.dumps([{"work": "another shape's"}]))
    gpu.main([*ASKED, f"out={out}"])
    return json.loads(out.read_text())


def test_both_methods_are_measured_and_other_records_are_kept(rehearsed):
    kept, *records = rehearsed
    assert kept == {"work": "another shape's"}
    works = ("predict, {}", "predict with adapter, {}", "train, {}")
    names = [
        f"tiny {method}: {work.format(lengths)} rows up to 32" + ", gradient checkpointing" * work.startswith("train")
        for method in ("lora", "qlora")
        for work in works
        for lengths in ("equal", "heavy-tailed")
    ]
    assert [record["work"] for record in records] == names
    assert [record["error"] for record in records] == [None] * 12
    assert {record["precision"] for record in records} == {"float32", "nf4 + float32"}
    assert all(record.keys() >= COMMON and record["peer"] is None for record in records)
    assert all(record["command"].startswith(f"python -m benchmarks.gpu {' '.join(ASKED)} out=") for record in records)


def test_rates_follow_from_the_steps(rehearsed):
    for record in rehearsed[1:]:
        assert len(record["step_seconds"]) == len(record["step_tokens"]) == 2
        rates = [
            tokens / seconds for tokens, seconds in zip(record["step_tokens"], record["step_seconds"], strict=True)
        ]
        assert record["tokens_per_second"] == median(rates)
        assert (record["tokens_per_second_min"], record["tokens_per_second_max"]) == (min(rates), max(rates))
        assert record["seconds_per_step"] == median(record["step_seconds"])
        executed = record["tokens_per_second"] * record["executed_flops_per_token"] / record["matrix_flops"]
        assert record["share_executed"] == pytest.approx(executed)
        assert 0 < record["share_useful"] <= record["share_executed"] < 1
        assert record["peak_memory_gib"] > 0
        if " equal " in record["work"]:
            assert (record["step_tokens"], record["padded_share"]) == ([64, 64], 0)


def test_a_training_record_counts_recomputation(rehearsed):
    num_body = 2 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128 + 2 * 64) + 64
    train = next(record for record in rehearsed[1:] if ": train" in record["work"])
    assert train["body_parameters"] == num_body
    assert (train["useful_flops_per_token"], train["executed_flops_per_token"]) == (4 * num_body, 6 * num_body)


@pytest.mark.parametrize(
    ("training", "checkpointing", "cost"),
    [
        (False, False, TokenCost(2000, 2000)),
        (True, False, TokenCost(4000, 4000)),
        (True, True, TokenCost(4000, 6000)),
    ],
)
def test_cost_of_a_token(training, checkpointing, cost):
    assert token_cost(1000, training, checkpointing) == cost


def test_shares_of_the_matrix_rate_by_hand():
    """Two steps of 1,000 tokens in 1 and 3 s, 4N and 6N operations a token at N = 10: the middle of 1,000 and 333."""
    facts = {"shape": "tiny", "tokens": 8, "dtype": "float32", "body_parameters": 10, "matrix_flops": 1e5}
    speed = Speed([1.0, 3.0], [1000, 1000], 0.0, 1.5)
    record = make_record(Case("train", "lora", "equal", True), speed, facts)
    assert record["tokens_per_second"] == pytest.approx(2000 / 3)
    assert record["share_useful"] == pytest.approx(2000 / 3 * 40 / 1e5)
    assert record["share_executed"] == pytest.approx(2000 / 3 * 60 / 1e5)
    work, *cells = (cell.strip() for cell in table([record]).splitlines()[-1].strip("|").split("|"))
    assert work == "tiny lora: train, equal rows up to 8, gradient checkpointing"
    assert cells == ["667", "333", "1,000", "2.000", "1.5", "26.7%", "40.0%"]


@pytest.mark.parametrize("name", ["llama3_8b", "gemma2_9b"])
def test_shapes_are_the_published_ones(name):
    assert SHAPES[name].config().to_dict() == PUBLISHED[name]().to_dict()


def test_body_of_llama3_8b_by_hand():
    layer = 4096 * 4096 * 2 + 4096 * 1024 * 2 + 3 * 4096 * 14336 + 2 * 4096
    assert body_parameters(SHAPES["llama3_8b"].config()) == 32 * layer + 4096


def test_heavy_tailed_lengths_stay_within_their_bounds():
    lengths = row_lengths("heavy-tailed", 1000, 2048)
    assert (min(lengths), max(lengths)) == (100, 2000)
    assert 300 < median(lengths) < 500


def test_a_failure_is_recorded_and_memory_errors_do_not_stop_the_rest():
    failure = gpu_cases.attempt(lambda: torch.empty(10**17))
    assert isinstance(failure, Failure)
    facts = {"shape": "tiny", "tokens": 8, "dtype": "float32"}
    record = make_record(Case("train", "qlora", "equal"), failure, facts)
    assert record["error"] == failure.error
    assert "tokens_per_second" not in record
    assert "| failed |" in " ".join(table([record]).split())


def test_a_model_that_cannot_be_loaded_fails_each_of_its_cases(capsys):
    gpu.main([*ASKED, "method=lora", "attention=flash_attention_3"])
    assert capsys.readouterr().out.count("failed") == 6


def test_the_adapter_is_the_one_that_users_get():
    saved = yaml.safe_load((ROOT / "conf/adapter/lora.yaml").read_text())
    own = gpu_cases.ADAPTER.model_dump()
    assert own == saved | {"alpha": own["alpha"]}, "alpha follows the learning rate, and costs no time"


def test_help_does_not_import_torch():
    code = "import sys, runpy; sys.argv = ['gpu', '--help']; runpy.run_module('benchmarks.gpu', run_name='__main__')"
    code += "\nassert not {'torch', 'transformers', 'peft'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Training and prediction speed")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("shape=llama3", "shape=llama3 is not known; "),
        ("method=lora,dora", "method=dora is not known; "),
        ("steps=0", "steps='0' is not accepted: input should be greater than 0"),
        ("gradient_checkpointing=maybe", "gradient_checkpointing=maybe is not known; "),
        ("tokenz=8", "unknown argument 'tokenz=8'"),
    ],
)
def test_wrong_arguments_are_one_line(argument, message):
    with pytest.raises(UserError) as caught:
        gpu.main([argument])
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_file_of_something_else_is_not_overwritten(tmp_path):
    path = tmp_path / "other.json"
    path.write_text('{"a": 1}')
    with pytest.raises(UserError, match="not a list of this benchmark's records"):
        read_records(path)
    assert path.read_text() == '{"a": 1}'


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_large_shapes_are_refused():
    with pytest.raises(UserError, match=r"shape=gemma2_9b needs a GPU.*shape=tiny rehearses on the CPU"):
        gpu.main(["shape=gemma2_9b", "out=nowhere.json"])
