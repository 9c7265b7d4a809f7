"""One computing context in training, on dev rows and in prediction; float16 that notices steps without effect."""

import copy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from nexttoken.engine.answerers import FoldModels
from nexttoken.engine.heads import LabelSoftmax
from nexttoken.errors import UserError
from nexttoken.models.adapters import add_adapter
from nexttoken.models.load import resolve
from nexttoken.models.precision import AUTOCAST, autocast_dtype, compute_in, computing
from nexttoken.models.scratch import build_llama
from nexttoken.prompts.label_tokens import LabelTokens
from nexttoken.prompts.prompt import Prompt
from nexttoken.settings import AdapterSettings, FitSettings, ScratchSettings
from nexttoken.training.callbacks import Curve
from nexttoken.training.fit import fit
from nexttoken.training.learner import Learner
from nexttoken.training.module import MAX_SKIPPED, AnswerModule
from nexttoken.training.steps import Batcher, Course, TrainSteps
from nexttoken.types import Example
from support.composed import settings

LABELS = LabelTokens(("A", "B", "C"), ((5,), (6,), (7,)), (("A",), ("B",), ("C",)), 0)
SMALL = ScratchSettings(vocab_size=100, hidden_size=32, num_layers=2, num_heads=4, initializer_range=0.3)
LORA = AdapterSettings(r=4, alpha=8, dropout=0.0, target_modules="all-linear", rslora=False, dora=False, init="default")


class Tokenizer:
    """As much of one as building a model asks for."""

    bos_token_id = eos_token_id = 0

    def __len__(self) -> int:
        return 100


def build(precision: str, adapter: bool = False) -> torch.nn.Module:
    torch.manual_seed(0)
    model = build_llama(SMALL, Tokenizer(), 64, None)
    if adapter:
        model = add_adapter(model.to(AUTOCAST[precision]), LORA)
    compute_in(model, AUTOCAST[precision])
    return model.train()


def rows(num_rows: int = 9) -> list[SimpleNamespace]:
    draw = np.random.default_rng(1)
    facts = {"num_options": None, "votes": (), "round": 0, "num_targets": 1}
    return [
        SimpleNamespace(id=f"r{n}", label=n % 3, token_ids=draw.integers(8, 99, 3 + n), **facts)
        for n in range(num_rows)
    ]


def fitted(model: torch.nn.Module, folder: Path, precision: str, num_epochs: int = 3) -> AnswerModule:
    """A step a row, on the CPU, with dev rows."""
    batcher = Batcher(LabelSoftmax(), LABELS, 400, packs=True)
    steps = TrainSteps(rows(), 1, 0, batcher)
    module = AnswerModule(model, LabelSoftmax(), LABELS, FitSettings(), Course(len(steps) * num_epochs, 0))
    trainer = settings(f"trainer.max_epochs={num_epochs}", "trainer.accelerator=cpu").trainer.model_dump()
    options = trainer | {"precision": precision, "logger": []}
    fit(module, steps, batcher.batches(rows(4)), folder, Curve(folder / "curve.csv"), options)
    return module


@pytest.mark.parametrize("adapter", [False, True], ids=["whole", "adapter"])
@pytest.mark.parametrize("precision", AUTOCAST)
def test_the_forward_pass_has_its_dtype_and_the_backward_pass_no_autocast(tmp_path, precision, adapter):
    model, forward, backward = build(precision, adapter), set(), set()
    layer = next(module for name, module in model.named_modules() if name.endswith("layers.0.mlp.down_proj"))
    layer.register_forward_hook(lambda _, __, output: forward.add((output.dtype, torch.is_autocast_enabled("cpu"))))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_hook(lambda gradient: backward.add((gradient.dtype, torch.is_autocast_enabled("cpu"))))
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    fitted(model, tmp_path, precision, num_epochs=1)
    dtype = AUTOCAST[precision]
    assert forward == {(dtype or torch.float32, dtype is not None)}
    assert backward == {(torch.float32, False)}
    moved = [not p.equal(before[name]) for name, p in model.named_parameters() if p.requires_grad]
    assert all(moved[2:]), "it learns"


def test_gradients_of_mixed_precision_point_where_those_of_float32_do():
    (batch,) = Batcher(LabelSoftmax(), LABELS, 400, packs=True).batches(rows())
    gradients = []
    for precision in ("32-true", "bf16-mixed"):
        model = build(precision)
        LabelSoftmax().loss(model, batch, LABELS).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    exact, mixed = gradients
    assert torch.cosine_similarity(exact, mixed, dim=0) > 0.995
    assert 0.95 < mixed.norm() / exact.norm() < 1.05


def test_skipped_steps_are_counted_and_the_count_outlives_a_kill(tmp_path):
    model, left = build("16-mixed"), [0.0] * 3
    factors = iter(left + [1.0] * 1000)
    model.model.norm.weight.register_hook(lambda gradient: gradient / next(factors))
    module = fitted(model, tmp_path, "16-mixed", num_epochs=2)
    assert (module.num_skipped, module.skipped_in_a_row) == (3, 0)
    curve = pd.read_csv(tmp_path / "curve.csv")
    assert curve["skipped_steps"].dropna().tolist() == [3]
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert checkpoint["skipped_steps"] == (3, 0)


def test_float16_stops_where_every_step_overflows(tmp_path):
    model = build("16-mixed", adapter=True)
    before = copy.deepcopy(dict(model.named_parameters()))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_hook(lambda gradient: gradient * torch.inf)
    message = rf"overflowed float16 in {MAX_SKIPPED} steps in a row.*\(step 20, ids r\d\); use trainer\.precision"
    with pytest.raises(UserError, match=message) as error:
        fitted(model, tmp_path, "16-mixed")
    assert "\n" not in str(error.value)
    assert all(parameter.equal(before[name]) for name, parameter in model.named_parameters())


PROMPT = Prompt("{{ text[0] }}\n", "### Answer\n", ["A", "B", "tie"])
EXAMPLES = [Example(str(n), {"text": (f"Which one is better? {'yes ' * n}",)}, n % 3) for n in range(6)]
WAYS = {
    "adapter on a 16-bit base": (["adapter=lora", "model.dtype=bfloat16"], torch.bfloat16),
    "adapter on a 16-bit base, not mixed": (
        ["adapter=lora", "model.dtype=bfloat16", "trainer.precision=32-true"],
        None,
    ),
    "4-bit base": (["adapter=lora", "model.dtype=bfloat16", "quantization=nf4"], torch.bfloat16),
    "whole": (["trainer.precision=bf16-mixed"], torch.bfloat16),
    "whole in float16": (["trainer.precision=16-mixed"], torch.float16),
    "not trained": (["trainer.max_epochs=0", "model.dtype=bfloat16"], torch.bfloat16),
    "float32": ([], None),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_saved_fold_answers_as_the_model_that_was_trained(base_dir, tmp_path, way):
    overrides, dtype = WAYS[way]
    common = ("trainer.max_epochs=1", "trainer.accelerator=cpu", "logger=none", "max_tokens=128", "batch_tokens=512")
    asked = settings(f"model.name_or_path={base_dir}", "fit.learning_rate=1e-2", *common, *overrides)
    learner = Learner.load(asked, LabelSoftmax(), PROMPT, EXAMPLES, EXAMPLES[:2])
    trained, _ = learner.learn(tmp_path / "fold0", [])
    loaded = FoldModels(asked, PROMPT, LabelSoftmax(), 512).answerer(tmp_path / "fold0")
    assert autocast_dtype(trained.model) == autocast_dtype(loaded.model) == dtype
    assert trained.environment == loaded.environment
    np.testing.assert_array_equal(loaded(EXAMPLES).probs, trained(EXAMPLES).probs)


def test_the_precision_on_a_gpu_is_decided_once(base_dir, monkeypatch):
    """Weights that are trained as a whole are mixed; frozen ones are computed in their own dtype."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    wanted = {
        ("trainer.max_epochs=1",): "bf16-mixed",
        ("trainer.max_epochs=1", "model.dtype=float32"): "bf16-mixed",
        ("trainer.max_epochs=1", "adapter=lora"): "bf16-mixed",
        ("trainer.max_epochs=1", "adapter=lora", "model.dtype=float32"): "32-true",
        ("trainer.max_epochs=1", "trainer.precision=32-true"): "32-true",
        ("trainer.max_epochs=0",): "bf16-mixed",
        ("trainer.max_epochs=0", "model.dtype=float32"): "32-true",
    }
    for overrides, precision in wanted.items():
        asked = settings(f"model.name_or_path={base_dir}", *overrides)
        assert resolve(asked, device=torch.device("cpu")).precision == precision, overrides


def test_float32_products_on_a_gpu_use_tf32(monkeypatch):
    before = torch.get_float32_matmul_precision()
    try:
        compute_in(torch.nn.Linear(1, 1), None)
        assert torch.get_float32_matmul_precision() == before, "a CPU's products stay as they are"
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        compute_in(torch.nn.Linear(1, 1), None)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


def test_adapters_added_before_or_after_have_the_context():
    for adapt_first in (True, False):
        model = build_llama(SMALL, Tokenizer(), 64, None)
        if adapt_first:
            model = add_adapter(model, LORA)
        compute_in(model, torch.bfloat16)
        model = model if adapt_first else add_adapter(model, LORA)
        with computing(model):
            assert torch.get_autocast_dtype("cpu") == torch.bfloat16
            assert torch.is_autocast_enabled("cpu")
    with computing(build_llama(SMALL, Tokenizer(), 64, None)):
        assert not torch.is_autocast_enabled("cpu")
