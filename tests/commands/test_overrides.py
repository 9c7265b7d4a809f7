"""The commands that take settings of train.py: plan, labels and quantize name a wrong one on one line."""

import pytest

from nexttoken.commands.entry import compose_settings
from nexttoken.data.targets import make
from nexttoken.errors import UserError
from support.commands import refusal, status_of


@pytest.fixture(autouse=True)
def _in_the_repository(repository, monkeypatch) -> None:
    monkeypatch.chdir(repository)


@pytest.mark.parametrize("command", ["plan", "labels", "quantize"])
@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("modl=x", "unknown key 'modl'; did you mean 'model'?"),
        ("foo", "missing EQUAL at '<EOF>'; write key=value"),
        ("task=null", "cannot be null; give one of its choices"),
        ("quantization=nf5", "quantization=nf5 is not one of its choices; did you mean 'nf4'?"),
        ("max_tokens=-1", "max_tokens=-1 is not accepted"),
        ("fold=9", "fold=9 does not exist: split.num_folds=5, so folds are 0 to 4"),
    ],
)
def test_a_wrong_setting_is_one_line(tmp_path, capsys, command, argument, words):
    out = [f"out={tmp_path / 'q'}", "quantization=nf4"] if command == "quantize" else []
    if argument.startswith("quantization"):
        out = out[:1]
    line = refusal(capsys, command, *out, argument)
    assert words in line
    assert "Config search path" not in line
    assert "https://" not in line


def test_a_plan_is_a_table_without_weights(capsys):
    assert status_of("plan", ["model.scratch.hidden_size=32", "model.scratch.num_layers=1", "batch_tokens=512"]) == 0
    shown = capsys.readouterr().out
    for words in ("weights", "gradients", "optimizer", "activations", "needs about"):
        assert words in shown


@pytest.mark.slow
def test_a_shipped_model_is_planned_without_network_and_device(tmp_path, capsys, monkeypatch):
    from huggingface_hub import constants

    def connect(*_: object) -> None:
        raise AssertionError("a plan of a shipped model needs no network")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.socket.connect", connect)
    given = ["model=smollm2_135m", "adapter=lora", "max_tokens=128", "batch_tokens=256", "device=t4x2"]
    assert status_of("plan", given) == 0
    shown = capsys.readouterr().out
    assert "SmolLM2-135M-Instruct: planned by its published dimensions" in shown
    assert "plan for t4x2: 139,399,488 parameters, 4,884,480 of them trained" in shown
    assert shown.endswith("t4x2 (2 x NVIDIA T4, 14.6 GiB each): one process for each GPU, each with the whole model\n")
    assert "device=p100 is refused" in refusal(capsys, "plan", *given[:-1], "device=p100")


def test_quantize_is_refused_before_a_folder_is_made(tmp_path, capsys):
    out = tmp_path / "models" / "q"
    file = tmp_path / "file"
    file.write_text("x")
    assert "out= is missing" in refusal(capsys, "quantize", "quantization=nf4")
    assert "add quantization=nf4 or quantization=int8" in refusal(capsys, "quantize", f"out={out}")
    assert "needs a pretrained model" in refusal(capsys, "quantize", f"out={out}", "quantization=nf4")
    assert "exists already" in refusal(capsys, "quantize", f"out={tmp_path}", "quantization=nf4")
    assert not out.parent.exists()
    below = [f"out={file / 'q'}", "quantization=nf4", f"model.name_or_path={tmp_path}"]
    assert refusal(capsys, "quantize", *below).startswith(f"{file}: File exists; give another path")


def test_labels_are_refused_where_there_are_none(tmp_path, capsys):
    assert "open texts, so there are no labels to audit" in refusal(capsys, "labels", "task=instruct")
    assert "model=' has no value" in refusal(capsys, "labels", "model=")
    assert "train.csv cannot be read" in refusal(capsys, "labels", f"input_dir={tmp_path}")
    assert "'nothing' is undefined" in refusal(capsys, "labels", "prompt.user='{{ nothing }}'")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("name=a/b", "expected a file name without / and"),
        ("name=.hidden", "not beginning with a dot"),
        (f"name='{'é' * 101}'", "of at most 200 bytes"),
        ("name='a '", "expected a file name"),
        ("model.scratch.hidden_size=33", "model.scratch: hidden_size must be a multiple of twice num_heads=4"),
        ("split.num_folds=x", "expected a whole number"),
        ("task._target_=os.system", "expected a class of nexttoken.tasks"),
    ],
)
def test_a_wrong_value_is_explained_in_plain_words(override, words):
    with pytest.raises(UserError) as caught:
        compose_settings([override])
    assert words in str(caught.value)
    assert "string should match pattern" not in str(caught.value)


def test_a_class_that_is_not_there_is_one_line():
    with pytest.raises(UserError, match=r"expected a class of nexttoken\.tasks") as caught:
        make({"_target_": "nexttoken.nope.X"}, "task")
    assert "\n" not in str(caught.value)
