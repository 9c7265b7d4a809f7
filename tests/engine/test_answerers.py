"""Folds asked one after the other: base, tokenizer and encoder come once, and no answer differs from a fold's alone."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from nexttoken.data.files import write_json
from nexttoken.engine.answerers import FoldModels, load_answerer
from nexttoken.engine.heads import Classification, LabelSoftmax
from nexttoken.errors import UserError
from nexttoken.inference import SwapAveraged
from nexttoken.models import fold_weights as weights
from nexttoken.models.adapters import add_adapter, start_from_quantization_error
from nexttoken.models.load import load_model, load_tokenizer
from nexttoken.models.saved import save_labels, save_trained
from nexttoken.pipeline import train
from nexttoken.prompts.encode_labels import Encoder
from nexttoken.prompts.prompt import Prompt
from nexttoken.runs.load import load_run
from nexttoken.settings import AUTO, Settings
from nexttoken.tasks.preference import Preference
from nexttoken.types import Example, LabelPredictions
from support.composed import config_of, settings
from support.training import SAMPLE

PROMPT = Prompt("{{ text[0] }}\n", "### Answer\n", ["A", "B", "tie"])
EXAMPLES = [Example(str(n), {"text": (f"Which one is better? {'yes ' * n}",)}, n % 3) for n in range(12)]
WAYS = {
    "lora": [],
    "dora, rank-stabilised": ["adapter.dora=true", "adapter.rslora=true"],
    "nf4, classification": ["quantization=nf4", "head=classification"],
    "nf4, loftq": ["quantization=nf4", "adapter.init=loftq"],
    "int8": ["quantization=int8"],
}


def asked_of(base_dir: Path, *overrides: str) -> Settings:
    return settings(f"model.name_or_path={base_dir}", "max_tokens=128", *overrides)


def models_of(asked: Settings) -> FoldModels:
    head = Classification() if "Classification" in asked.head["_target_"] else LabelSoftmax()
    return FoldModels(asked, PROMPT, head, 512)


def alone(fold: Path, asked: Settings) -> np.ndarray:
    return load_answerer(fold, asked, PROMPT, models_of(asked).head, 512)(EXAMPLES).probs


def make_fold(fold: Path, asked: Settings, seed: int) -> Path:
    """A fold as training leaves it, whose weights (random ones) move the answers in its own way."""
    tokenizer, head = load_tokenizer(asked.model, ()), models_of(asked).head
    labels = Encoder(tokenizer, PROMPT, 128).encode(EXAMPLES).labels
    torch.manual_seed(seed)
    num_classes = head.num_outputs(labels)
    model = load_model(asked.model, tokenizer, 128, torch.float32, asked.quantization, num_classes)
    if asked.adapter is not None:
        model = add_adapter(model, asked.adapter, num_classes)
        if asked.adapter.init == "loftq":
            start_from_quantization_error(model, Path(str(asked.model.name_or_path)))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:  # all that is trained: A, B, magnitudes, a classification layer
                parameter.add_(0.05 * torch.randn_like(parameter))
    save_trained(fold, asked, model, tokenizer)
    save_labels(fold / "labels.json", labels)
    return fold


@pytest.fixture
def loads(monkeypatch) -> list[str]:
    """The loaded models, in order."""
    seen: list[str] = []
    load = weights.load_model

    def noted(named, *rest, **options):
        seen.append(str(named.name_or_path))
        return load(named, *rest, **options)

    monkeypatch.setattr(weights, "load_model", noted)
    return seen


@pytest.mark.parametrize("way", WAYS)
def test_adapters_change_places_on_one_base(base_dir, tmp_path, loads, way):
    asked = asked_of(base_dir, "adapter=lora", *WAYS[way])
    folds = [make_fold(tmp_path / f"fold{n}", asked, n) for n in range(3)]
    expected = [alone(fold, asked) for fold in folds]
    assert np.abs(expected[0] - expected[1]).max() > 1e-3, "folds have answers of their own"
    loads.clear()
    models = models_of(asked)
    for number in (0, 1, 2, 0):
        answerer = models.answerer(folds[number])
        np.testing.assert_array_equal(answerer(EXAMPLES).probs, expected[number])
        assert answerer.counts["num_truncated"] == 0
        assert len(answerer.prompts) == len(EXAMPLES), "what other folds read is not counted"
    assert loads == [str(base_dir)]


def test_folds_share_the_encoder_and_the_answerer_before_has_lost_its_model(base_dir, tmp_path):
    asked = asked_of(base_dir, "adapter=lora")
    models = models_of(asked)
    first = models.answerer(make_fold(tmp_path / "fold0", asked, 0))
    second = models.answerer(make_fold(tmp_path / "fold1", asked, 1))
    assert second.encoder is first.encoder
    with pytest.raises(AttributeError, match="model"):
        first(EXAMPLES)


def test_a_fold_of_another_base_or_another_shape_is_refused(base_dir, tmp_path):
    asked = asked_of(base_dir, "adapter=lora")
    folds = [make_fold(tmp_path / f"fold{n}", asked, n) for n in range(4)]
    expected = alone(folds[0], asked)
    write_json({"name": "x", "weights": "other", "tokenizer": "other", "stored": ""}, folds[1] / "adapter/base.json")
    saved = folds[2] / "adapter/adapter_model.safetensors"
    cut_short = dict(list(load_file(saved).items())[:-1])
    save_file(cut_short, saved)
    (folds[3] / "adapter/adapter_model.safetensors").unlink()
    models = models_of(asked)
    models.answerer(folds[0])
    for fold, what in zip(
        folds[1:], ("was trained on x", "1 of its weights do not fit", "has no adapter"), strict=True
    ):
        with pytest.raises(UserError, match=what):
            models.answerer(fold)
    np.testing.assert_array_equal(models.answerer(folds[0])(EXAMPLES).probs, expected)


def test_whole_weights_take_turns_and_share_a_tokenizer_that_is_the_same(base_dir, tmp_path, loads):
    asked = asked_of(base_dir)
    folds = [make_fold(tmp_path / f"fold{n}", asked, n) for n in range(3)]
    own = folds[2] / "model/tokenizer_config.json"
    own.write_text(own.read_text() + "\n")  # as where each fold has learnt a tokenizer of its own
    expected = [alone(fold, asked) for fold in folds]
    loads.clear()
    models, encoders = models_of(asked), []
    for fold, probs in zip(folds, expected, strict=True):
        answerer = models.answerer(fold)
        encoders.append(answerer.encoder)
        np.testing.assert_array_equal(answerer(EXAMPLES).probs, probs)
    assert loads == [str(fold / "model") for fold in folds]
    assert encoders[0] is encoders[1]
    assert encoders[0] is not encoders[2]


def test_whole_weights_need_their_base_no_more_to_choose_batch_tokens(base_dir, tmp_path):
    """As on Kaggle without internet: what was trained lies there whole, and where it came from does not."""
    base = Path(shutil.copytree(base_dir, tmp_path / "base"))
    asked = asked_of(base)
    fold = make_fold(tmp_path / "fold0", asked, 0)
    shutil.rmtree(base)
    answerer = FoldModels(asked, PROMPT, LabelSoftmax(), AUTO).answerer(fold)
    assert 128 <= answerer.batch_tokens < AUTO


def test_a_fold_with_a_budget_of_its_own_cuts_by_it(base_dir, tmp_path):
    asked = asked_of(base_dir, "adapter=lora", "max_tokens=auto")
    folds = [make_fold(tmp_path / f"fold{n}", asked, n) for n in range(3)]
    for fold, max_tokens in zip(folds, (128, 30, 128), strict=True):
        write_json({"max_tokens": max_tokens, "reason": "test"}, fold / "budget.json")
    models, seen = models_of(asked), []
    for fold in folds:
        answerer = models.answerer(fold)
        answerer(EXAMPLES)
        seen.append((answerer.encoder, answerer.counts["num_truncated"]))
    (first, none), (other, some), (third, again) = seen
    assert first is third is not other
    assert none == again == 0 < some


def test_both_orders_of_a_pair_go_through_the_model_together():
    """Their ids are the same; an answerer that likes the first place cannot tell once both orders are averaged."""
    calls = []

    def likes_the_first(examples):
        calls.append([(example.id, example.fields["response_a"]) for example in examples])
        good, bad = [0.6, 0.1, 0.3], [0.5, 0.2, 0.3]
        probs = np.array([good if "good" in example.fields["response_a"] else bad for example in examples])
        return LabelPredictions(tuple(example.id for example in examples), probs, {"seconds": np.arange(len(examples))})

    texts = {"x": ("good", "bad"), "y": ("bad", "bad")}
    pairs = [Example(name, {"response_a": (a,), "response_b": (b,)}, 0) for name, (a, b) in texts.items()]
    asked = SwapAveraged()(pairs, likes_the_first)
    assert calls == [[("x", ("good",)), ("y", ("bad",)), ("x", ("bad",)), ("y", ("bad",))]]
    assert asked.ids == ("x", "y")
    np.testing.assert_allclose(asked.probs, [[0.4, 0.3, 0.3], [0.35, 0.35, 0.3]])
    assert asked.columns["seconds"].tolist() == [0 + 2, 1 + 3]


def run_of_two(tmp_path: Path, base_dir: Path, *overrides: str) -> Path:
    small = (
        "limit_rows=12",
        "max_tokens=120",
        "task=lmsys",
        "fit=finetune",
        "fit.batch_size=8",
        "inference=swap_averaged",
    )
    places = (f"model.name_or_path={base_dir}", f"input_dir={SAMPLE}", f"output_dir={tmp_path}", "name=two")
    train(config_of("train", *places, *small, "fold=0", *overrides))
    run = tmp_path / "lmsys" / "two"
    shutil.copytree(run / "fold0", run / "fold1")
    metrics = json.loads((run / "fold1" / "metrics.json").read_text()) | {"fold": 1}
    del metrics["sealed"]  # else it would be a copy that was altered
    (run / "fold1" / "metrics.json").write_text(json.dumps(metrics))
    return run


def test_a_run_is_the_average_of_its_folds_over_one_base(base_dir, tmp_path, loads):
    run = run_of_two(tmp_path, base_dir, "adapter=lora", "trainer.max_epochs=1", "fit.learning_rate=0.05")
    saved = run / "fold1/adapter/adapter_model.safetensors"
    turned = {name: value * (1 - 2 * ("lora_B" in name)) for name, value in load_file(saved).items()}
    save_file(turned, saved)
    rows, loaded = Preference("input/sample-preferences").read("test")[:5], load_run(run)
    loads.clear()
    together = loaded.answer(rows)
    assert loads == [str(base_dir)]
    alone = [type(loaded)(loaded.folder, [fold], loaded.parts, loaded.batch_tokens) for fold in loaded.folds]
    single = [run.answer(rows) for run in alone]
    np.testing.assert_allclose(together.probs, np.mean([one.probs for one in single], axis=0), atol=1e-12)
    loads.clear()
    for fold, one in zip(loaded.folds, single, strict=True):
        np.testing.assert_array_equal(loaded.inference(fold)(rows, loaded.answerer(fold)).probs, one.probs)
    assert loads == [str(base_dir)], "asked fold by fold, too"
    loaded.release()
    loaded.answerer(loaded.folds[0])
    assert len(loads) == 2


def test_folds_of_an_untrained_model_are_asked_once(base_dir, tmp_path, loads, monkeypatch):
    run = run_of_two(tmp_path, base_dir, "trainer.max_epochs=0", "adapter=none")
    rows, asked = Preference("input/sample-preferences").read("test")[:5], []
    encode = Encoder.encode

    def noted(self, rows, *rest, **options):
        asked.append(len(rows))
        return encode(self, rows, *rest, **options)

    monkeypatch.setattr(Encoder, "encode", noted)
    loads.clear()
    both = load_run(run).answer(rows)
    assert loads == [str(base_dir)]
    assert asked == [10], "both orders of five rows, once"
    shutil.rmtree(run / "fold1")
    np.testing.assert_array_equal(load_run(run).answer(rows).probs, both.probs)
