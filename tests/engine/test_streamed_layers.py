"""A model whose layers stay in their files answers as the same model in memory does, and holds two layers at a time."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from conftest import TEXTS, save_small_base
from nexttoken.engine import streamed_layers
from nexttoken.engine.answerers import measure_losses
from nexttoken.engine.candidate_answerer import predict_candidates
from nexttoken.engine.generation.transformers import TransformersGenerator
from nexttoken.engine.heads import Candidates, LabelSoftmax
from nexttoken.engine.hidden_states import StateReader
from nexttoken.engine.journal import JournalFolder
from nexttoken.engine.label_answerer import LabelAnswerer
from nexttoken.engine.memory_plan.make import plan_weights
from nexttoken.errors import UserError
from nexttoken.models.adapters import add_adapter, save_adapter
from nexttoken.models.load import load_model, load_tokenizer, resolve
from nexttoken.models.precision import compute_in
from nexttoken.models.saved import save_whole
from nexttoken.models.streamed import ARCHITECTURES, layer_stream
from nexttoken.prompts.encode_labels import EncodedPrompt, Encoder
from nexttoken.prompts.encode_texts import TextEncoder
from nexttoken.prompts.encoded import NO_LABELS
from nexttoken.prompts.prompt import Prompt
from nexttoken.settings import AdapterSettings, ModelSettings
from nexttoken.types import Example
from support.composed import settings
from support.packed_weights import RECIPES, save_packed
from support.small_models import SMALL
from support.training import predict, train

PROMPT = Prompt("{{ text[0] }}\n", "### Answer\n", ["A", "B", "tie"])
EXAMPLES = [Example(str(n), {"text": (f"Which one is better? {'yes ' * (n % 7)}{n}",)}, n % 3) for n in range(20)]
LORA = AdapterSettings(r=4, alpha=8, dropout=0.0, target_modules="all-linear", rslora=False, dora=False, init="default")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return save_small_base(tmp_path_factory.mktemp("base") / "whole")


def save_architecture(base: Path, kind: str, folder: Path) -> Path:
    """A small model of this architecture with the base's tokenizer."""
    extra = {"num_hidden_layers": 3, "vocab_size": 400, "sliding_window": 8} if kind != "phi3" else {}
    shape = SMALL | {"vocab_size": 400, "num_hidden_layers": 3} | extra
    config = AutoConfig.for_model(kind, **shape)
    torch.manual_seed(0)
    save_whole(folder, AutoModelForCausalLM.from_config(config), load_tokenizer(named(base), ()))
    return folder


def named(folder: Path, streams: bool = False) -> ModelSettings:
    return ModelSettings(name_or_path=str(folder), stream_layers=streams)


def load(folder: Path, streams: bool, dtype=torch.float32):
    return load_model(named(folder, streams), load_tokenizer(named(folder), ()), 128, dtype).eval()


def answer(model, folder: Path, batch_tokens: int = 128, examples=EXAMPLES) -> np.ndarray:
    encoder = Encoder(load_tokenizer(named(folder), ()), PROMPT, 64)
    return LabelAnswerer(model, LabelSoftmax(), encoder, encoder.encode(examples).labels, batch_tokens)(examples).probs


@pytest.mark.parametrize("kind", sorted(ARCHITECTURES))
def test_streamed_layers_answer_as_those_in_memory(base, tmp_path, kind):
    folder = save_architecture(base, kind, tmp_path / kind)
    streamed = load(folder, streams=True)
    stream = layer_stream(streamed)
    assert stream is not None
    whole = answer(load(folder, streams=False), folder)
    assert np.ptp(whole, axis=0).min() > 0.01, "the rows differ"
    np.testing.assert_allclose(answer(streamed, folder), whole, atol=2e-5)


def test_each_layer_is_read_once_for_all_rows_and_freed(base):
    streamed = load(base, streams=True)
    stream = layer_stream(streamed)
    held = [set[int]()]
    loaded = type(stream).load

    def load_and_count(self, number: int, following: int | None) -> None:
        loaded(self, number, following)
        held.append({n for n, layer in enumerate(self.tensors) if not layer[0].placeholder.is_meta})

    type(stream).load, before = load_and_count, loaded
    try:
        answer(streamed, base, batch_tokens=64)
    finally:
        type(stream).load = before
    assert held[1:] == [{0}, {1}]
    layers = sum(p.numel() * 4 for name, p in load(base, streams=False).named_parameters() if ".layers." in name)
    assert stream.bytes_read == layers
    assert all(one.placeholder.is_meta for layer in stream.tensors for one in layer)


def test_one_batch_alone_reads_all_layers_for_itself(base):
    """Rows that are asked again in float32, and the trial of float16, go through the model in this way."""
    token_ids = torch.arange(1, 30)[None]
    with torch.inference_mode():
        logits = [load(base, streams)(input_ids=token_ids, use_cache=False).logits for streams in (True, False)]
    torch.testing.assert_close(*logits)


@pytest.mark.parametrize("memory", [0, 5000])
def test_states_that_do_not_fit_in_memory_are_in_a_file(base, monkeypatch, memory):
    expected = answer(load(base, streams=True), base, batch_tokens=64)
    monkeypatch.setattr(streamed_layers, "memory_for_states", lambda: memory)
    np.testing.assert_array_equal(answer(load(base, streams=True), base, batch_tokens=64), expected)


def test_more_rows_than_fit_anywhere_go_through_in_several_passes(base, monkeypatch):
    expected, streamed = answer(load(base, streams=True), base, batch_tokens=64), load(base, streams=True)
    monkeypatch.setattr(streamed_layers, "memory_for_states", lambda: 30_000)
    monkeypatch.setattr(streamed_layers, "disk_for_states", lambda: 0)
    np.testing.assert_array_equal(answer(streamed, base, batch_tokens=64), expected)
    once = load(base, streams=True)
    monkeypatch.undo()
    answer(once, base, batch_tokens=64)
    assert layer_stream(streamed).bytes_read >= 2 * layer_stream(once).bytes_read


def test_a_full_disk_is_one_line(base, monkeypatch):
    monkeypatch.setattr(streamed_layers, "memory_for_states", lambda: 0)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(streamed_layers.os, "pwrite", full)
    with pytest.raises(UserError, match=r"hidden states cannot be written in .*No space left.*set NEXTTOKEN_CACHE"):
        answer(load(base, streams=True), base)


def test_a_killed_answer_goes_on_from_its_journal(base, tmp_path, monkeypatch):
    streamed = load(base, streams=True)
    encoder = Encoder(load_tokenizer(named(base), ()), PROMPT, 64)
    answerer = LabelAnswerer(streamed, LabelSoftmax(), encoder, encoder.encode(EXAMPLES).labels, 64)
    answerer.journals = JournalFolder(tmp_path)
    first = answerer(EXAMPLES).probs
    monkeypatch.setattr(type(layer_stream(streamed)), "load", lambda *_: pytest.fail("a layer was read again"))
    np.testing.assert_array_equal(answerer(EXAMPLES).probs, first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_adapter_is_computed_beside_the_streamed_layers(base, tmp_path, dtype):
    from nexttoken.models.adapters import overwrite_adapter

    plain = add_adapter(load(base, False, dtype), LORA)
    for name, parameter in plain.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1)
    save_adapter(plain, tmp_path / "adapter")
    streamed = add_adapter(load(base, True, dtype), LORA)
    overwrite_adapter(streamed, LORA, tmp_path / "adapter")
    for model in (plain, streamed):
        compute_in(model, dtype if dtype == torch.bfloat16 else None)
    without = answer(load(base, False, dtype), base)
    expected = answer(plain.eval(), base)
    assert np.abs(expected - without).max() > 0.01
    np.testing.assert_allclose(answer(streamed.eval(), base), expected, atol=2e-5 if dtype == torch.float32 else 0.02)


@pytest.mark.parametrize("name", ["gptq, 8 bits, act-order", "int8 a channel"])
def test_packed_layers_are_streamed_packed(tmp_path, tmp_path_factory, name):
    from conftest import load_pair
    from nexttoken.settings import ScratchSettings

    pair = load_pair(ModelSettings(scratch=ScratchSettings(vocab_size=400, hidden_size=96, num_layers=2)), TEXTS)
    save_whole(tmp_path / "base", pair.model, pair.tokenizer)
    packed, whole = tmp_path / "packed", tmp_path / "whole"
    save_packed(tmp_path / "base", RECIPES[name], packed, whole)
    streamed = load(packed, streams=True)
    np.testing.assert_allclose(answer(streamed, packed), answer(load(whole, streams=False), whole), atol=2e-5)
    assert layer_stream(streamed).bytes_read < 0.6 * layer_stream(answered(whole)).bytes_read


def answered(folder: Path):
    model = load(folder, streams=True)
    answer(model, folder)
    return model


def test_candidates_are_scored_through_streamed_layers(base):
    rng, head = np.random.default_rng(0), Candidates("text")
    size = len(load_tokenizer(named(base), ()))
    ids = [rng.integers(10, size, length, dtype=np.int32) for length in (9, 4, 12, 7)]
    prompts = [
        EncodedPrompt(str(row), None, "", one, False, 3, branches=tuple(rng.integers(10, size, (3, 4), dtype=np.int32)))
        for row, one in enumerate(ids)
    ]
    probs = [predict_candidates(load(base, streams), head, prompts, NO_LABELS, 64).probs for streams in (False, True)]
    np.testing.assert_allclose(*probs, atol=2e-5)


def test_open_answers_are_scored_through_streamed_layers(base):
    tokenizer = load_tokenizer(named(base), ())
    prompt = Prompt("{{ text[0] }}\n", "### Answer\n", [])
    rows = TextEncoder(tokenizer, prompt, 64).encode([replace(example, answer="yes, A") for example in EXAMPLES])
    losses = [measure_losses(load(base, streams), rows.prompts, 64) for streams in (False, True)]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_a_run_is_asked_through_streamed_layers(base, tmp_path):
    asked = ("model=smollm2_135m", f"model.name_or_path={base}", "model.dtype=float32", "trainer.max_epochs=0")
    loss = train(tmp_path, *asked, "adapter=none", "fold=0")
    plain = predict(tmp_path, f"run={tmp_path}/lmsys/tiny").drop(columns="id")
    shutil.rmtree(tmp_path / "submissions" / "written")
    streamed = predict(tmp_path, f"run={tmp_path}/lmsys/tiny", "stream_layers=true").drop(columns="id")
    assert (plain - streamed).abs().to_numpy().max() < 2e-5
    again = train(tmp_path, *asked, "adapter=none", "fold=0", "model.stream_layers=true", "name=streamed")
    assert again == pytest.approx(loss, abs=1e-5)


def test_the_plan_counts_two_layers(base, tmp_path):
    folder = save_architecture(base, "llama", tmp_path / "llama")
    asked = ("model=smollm2_135m", f"model.name_or_path={folder}", "model.dtype=float32", "trainer.max_epochs=0")
    all_at_once, two = (
        plan_weights(resolve(settings(*asked, f"model.stream_layers={value}"))).size("weights")
        for value in ("false", "true")
    )
    stream = layer_stream(load(folder, streams=True))
    layer = sum(one.placeholder.numel() * 4 for one in stream.tensors[0])
    assert all_at_once - two == layer  # of three


def test_what_cannot_be_streamed_is_refused(base, tmp_path):
    streamed = load(base, streams=True)
    with pytest.raises(UserError, match="each new token would read all layers"):
        TransformersGenerator(streamed, load_tokenizer(named(base), ()), 64, [0])
    with pytest.raises(UserError, match="head=probe reads the states of one layer"):
        StateReader(streamed, 64, 1, False, "x")
    with pytest.raises(UserError, match=r"is for answers only; .* stream_layers=true to predict\.py"):
        train(tmp_path, "model=smollm2_135m", f"model.name_or_path={base}", "model.stream_layers=true", "adapter=lora")
    with pytest.raises(UserError, match="model=scratch has none"):
        train(tmp_path, "model.stream_layers=true", "trainer.max_epochs=0")
    copy = save_architecture(base, "gpt_neox", tmp_path / "neox")
    with pytest.raises(UserError, match=r"is tried with gemma, .*, not with gpt_neox"):
        load(copy, streams=True)
    other = save_architecture(base, "llama", tmp_path / "short")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 4}))
    with pytest.raises(UserError, match=r"9 weights are missing, or have other names in the files") as raised:
        load(other, streams=True)
    assert "\n" not in str(raised.value)
