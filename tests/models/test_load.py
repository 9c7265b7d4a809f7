"""Loading models: a refusal is one line, at once, and runs no code; a saved model answers the same."""

import json
import os
import pickle
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from nexttoken.engine.answerers import load_answerer
from nexttoken.engine.heads import LabelSoftmax
from nexttoken.engine.label_answerer import LabelAnswerer
from nexttoken.errors import UserError
from nexttoken.models.load import load_config, load_model, load_tokenizer, within_context
from nexttoken.models.processes import choose_device
from nexttoken.models.quantized import loading_options
from nexttoken.models.saved import save_labels, save_whole
from nexttoken.prompts.encode_labels import Encoder
from nexttoken.prompts.prompt import Prompt
from nexttoken.settings import ModelSettings, ScratchSettings
from nexttoken.types import Example
from support.composed import settings

PROMPT = Prompt("{{ text[0] }}\n", "### Answer\n", ["A", "B", "tie"])
HUB_NAME = """
import sys, time
import transformers.models.auto
from nexttoken.errors import UserError
from nexttoken.models.load import load_model, load_tokenizer
from nexttoken.settings import ModelSettings
start = time.monotonic()
try:
    tokenizer = load_tokenizer(ModelSettings(name_or_path="somebody/something"), ())
    print(type(load_model(ModelSettings(name_or_path="somebody/something"), tokenizer, 64)).__name__)
except UserError as error:
    print(error)
print(time.monotonic() - start)
"""


@pytest.fixture
def folder(scratch, tmp_path) -> Path:
    save_whole(tmp_path / "model", scratch.model, scratch.tokenizer)
    return tmp_path / "model"


def change(path: Path, **values) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def load(folder: Path):
    settings = ModelSettings(name_or_path=str(folder))
    tokenizer = load_tokenizer(settings, ())
    return tokenizer, load_model(settings, tokenizer, 64)


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        load(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def silent_hub():
    """A hub that takes connections and never answers: the worst kind of no network."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def ask_the_hub(tmp_path: Path, **environment: str) -> tuple[str, float]:
    """The output of loading `somebody/something` in a separate process, and its seconds."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    env |= {"HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"} | environment
    done = subprocess.run([sys.executable, "-c", HUB_NAME], env=env, capture_output=True, text=True, check=True)
    *lines, seconds = done.stdout.splitlines()
    return "\n".join(lines), float(seconds)


@pytest.mark.slow
def test_a_downloaded_model_needs_no_network(tmp_path, silent_hub, scratch):
    repository = tmp_path / "hub" / "models--somebody--something"
    save_whole(repository / "snapshots" / ("a" * 40), scratch.model, scratch.tokenizer)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    name, seconds = ask_the_hub(tmp_path, HF_ENDPOINT=silent_hub)
    assert name == "LlamaForCausalLM"
    assert seconds < 20  # 5 of them the probe, the others imports; without it, minutes


@pytest.mark.parametrize("name", ["./nothing", "/nothing", "~/nothing", "output/lmsys/nothing"])
def test_a_folder_that_does_not_exist(name):
    start = time.monotonic()
    assert refusal(Path(name) if name[0] != "." else name).startswith(f"the model {name!r} is not a folder; give")
    assert time.monotonic() - start < 1


def test_an_empty_folder(tmp_path):
    assert "give a folder that holds it" in refusal(tmp_path)


class Touch:
    """A pickle that creates a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_weights_that_run_code_are_refused_and_do_not_run(folder, tmp_path, zipped):
    (folder / "model.safetensors").unlink()
    weights, trace = folder / "pytorch_model.bin", tmp_path / "executed"
    if zipped:
        torch.save({"lm_head.weight": Touch(trace)}, weights)
    else:
        weights.write_bytes(pickle.dumps({"lm_head.weight": Touch(trace)}, protocol=2))
    assert "its weights are a pickle that wants to run code, which is refused; use safetensors" in refusal(folder)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Touch(trace)))
    assert trace.exists(), "the pickle is a dangerous one"


@pytest.mark.parametrize("part", ["config", "tokenizer_config"])
def test_code_of_its_own_is_refused_and_does_not_run(folder, tmp_path, part):
    trace = tmp_path / "executed"
    (folder / "own.py").write_text(f"import pathlib; pathlib.Path({str(trace)!r}).touch()")
    if part == "config":
        classes = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
        change(folder / "config.json", model_type="own", auto_map=classes)
    else:
        change(folder / "tokenizer_config.json", tokenizer_class="Own", auto_map={"AutoTokenizer": [None, "own.Own"]})
    line = refusal(folder)
    assert "it ships its own code, which is not executed; if you trust it, set model.trust_remote_code=true" in line
    assert not trace.exists()


def test_a_tokenizer_of_another_model_is_refused(folder, stories):
    stories.tokenizer.save_pretrained(folder)
    assert re.search(r"the tokenizer knows 512 tokens, the model \d+; they do not fit", refusal(folder))


def test_broken_or_foreign_weights_are_refused(folder):
    path = folder / "model.safetensors"
    weights = load_file(path)
    missing = {name: tensor for name, tensor in weights.items() if "layers.1." not in name}
    save_file(missing, path, {"format": "pt"})
    assert re.search(r"weights are missing \(model\.layers\.1\..* and \d+ more\)", refusal(folder))
    name = "model.layers.0.mlp.up_proj.weight"
    save_file(weights | {name: weights[name][:3].clone()}, path, {"format": "pt"})
    assert "could not be loaded" in refusal(folder)
    path.write_bytes(path.read_bytes()[:1000])
    assert "could not be loaded" in refusal(folder)


def test_a_scratch_model_is_a_function_of_seed_and_text():
    settings = ModelSettings(scratch=ScratchSettings(vocab_size=300, hidden_size=16, num_layers=1, num_heads=2))
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        tokenizer = load_tokenizer(settings, ["some text and some more text"])
        model = load_model(settings, tokenizer, 64)
        states.append((tokenizer.get_vocab(), model.state_dict()))
    (vocab, first), (again, second) = states
    assert vocab == again
    assert model.training
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_budget_stays_within_the_models_context(stories, capsys):
    assert within_context(stories.model.config, 4096) == 512
    assert "max_tokens: 4096 -> 512" in capsys.readouterr().out
    assert within_context(stories.model.config, 100) == 100


@pytest.mark.parametrize("name", ["scratch", "stories"])
def test_a_saved_model_answers_the_same_to_the_last_bit(request, name, tmp_path):
    pair = request.getfixturevalue(name)
    examples = [Example(str(n), {"text": (f"Why? <|bos|></s>é😀 {n} " * n,)}) for n in range(40)]
    encoder = Encoder(pair.tokenizer, PROMPT, 128)
    labels = encoder.encode(examples).labels
    before = LabelAnswerer(pair.model.to(choose_device()), LabelSoftmax(), encoder, labels, 512)
    probs = before(examples).probs
    save_whole(tmp_path / "model", pair.model, pair.tokenizer)
    save_labels(tmp_path / "labels.json", before.labels)
    after = load_answerer(tmp_path, settings("max_tokens=128"), PROMPT, LabelSoftmax(), 512)
    np.testing.assert_array_equal(after(examples).probs, probs)
    assert after.counts == before.counts
    assert [p.token_ids.tolist() for p in after.prompts] == [p.token_ids.tolist() for p in before.prompts]
    assert len(np.unique(probs[:, 0])) > 10


@pytest.mark.parametrize("num_classes", [None, 3])
@pytest.mark.parametrize("dtype", [torch.float16, "auto"])
def test_whole_weights_go_straight_to_their_device(folder, dtype, num_classes):
    """A device without memory takes them only where no copy is made on the processor first."""
    own = ModelSettings(name_or_path=str(folder))
    given = (own, load_tokenizer(own, ()), 128, dtype, None, num_classes, None)
    model = load_model(*given, torch.device("meta"))
    assert {one.device.type for one in (*model.parameters(), *model.buffers())} == {"meta"}
    assert {one.dtype for one in model.parameters()} == {torch.float32 if dtype == "auto" else dtype}
    assert model.training
    assert {one.device.type for one in load_model(*given).parameters()} == {choose_device().type}


def test_loading_names_a_device_unless_it_is_the_processor(folder):
    config = load_config(ModelSettings(name_or_path=str(folder)))
    assert loading_options(config, None, torch.float16, torch.device("cpu")) == {}
    for device in (torch.device("cuda", 1), torch.device("meta")):
        assert loading_options(config, None, torch.float16, device) == {"device_map": {"": device}}
        assert loading_options(config, None, "auto", device) == {"device_map": {"": device}}
