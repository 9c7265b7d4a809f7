"""Float16 is tried with real rows, on the CPU as on a GPU; a model that does not fit is computed in float32."""

import shutil
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Gemma2Config, Gemma2ForCausalLM

from nexttoken.engine.float16_trial import MAX_OVERFLOWING, fits_float16, is_float32_instead, leave_float16
from nexttoken.engine.heads import LabelSoftmax
from nexttoken.engine.label_answerer import predict_labels
from nexttoken.models.adapters import add_adapter
from nexttoken.models.device_sheets import SHEETS
from nexttoken.models.load import resolve
from nexttoken.models.precision import autocast_dtype, compute_in
from nexttoken.models.scratch import build_llama
from nexttoken.prompts.encode_labels import EncodedPrompt
from nexttoken.prompts.label_tokens import LabelTokens
from nexttoken.prompts.prompt import Prompt
from nexttoken.settings import AdapterSettings, ScratchSettings
from nexttoken.training.learner import Learner
from nexttoken.types import Example
from support.composed import settings

PROMPT = Prompt("{{ text[0] }}\n", "### Answer\n", ["A", "B", "tie"])
EXAMPLES = [Example(str(n), {"text": (f"Which one is better? {'yes ' * n}",)}, n % 3) for n in range(8)]

SMALL = ScratchSettings(vocab_size=100, hidden_size=32, num_layers=2, num_heads=4, initializer_range=0.3)
LORA = AdapterSettings(r=4, alpha=8, dropout=0.0, target_modules="all-linear", rslora=False, dora=False, init="default")
ROWS = [np.arange(2, 20 + n, dtype=np.int32) for n in range(9)]
LINE = "float16: this model's numbers overflow or differ from float32, so it is computed in float32\n"


class Tokenizer:
    bos_token_id = eos_token_id = 0

    def __len__(self) -> int:
        return 100


def build(fault: str) -> Any:
    """A model with products beyond 65,504, or with states that float16 rounds to others."""
    torch.manual_seed(0)
    model: Any = build_llama(SMALL, Tokenizer(), 64, None).eval()
    with torch.no_grad():
        if fault == "overflow":
            model.model.layers[0].mlp.down_proj.weight *= 1e5 / model.model.layers[0].mlp.down_proj.weight.abs().max()
            model.model.layers[0].mlp.down_proj.weight.clamp_(-6e4, 6e4)
            model.model.layers[0].mlp.up_proj.weight *= 100
        if fault == "imprecise":  # a large feature, after whose norm float16 rounds the others to nothing
            model.model.embed_tokens.weight *= 1e-3
            model.model.embed_tokens.weight[:, 0] = 6e4
            model.model.norm.weight[0] = 0
            for layer in model.model.layers:
                layer.self_attn.o_proj.weight *= 0
                layer.mlp.down_proj.weight *= 0
    return model


def in_float16(model, way: str) -> Any:
    if way != "autocast":
        model = model.half()
    if way == "adapter":
        model = add_adapter(model, LORA).eval()
    if way != "weights":
        compute_in(model, torch.float16)
    return model


def states(model) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor(ROWS[3])[None].long()).logits[0, -1].float()


def test_finite_numbers_that_are_not_those_of_float32_are_found(capsys):
    model = in_float16(build("imprecise"), "weights")
    assert all(states(model).isfinite())
    leave_float16(model, ROWS)
    assert is_float32_instead(model)
    assert capsys.readouterr().out == LINE


@pytest.mark.parametrize("way", ["weights", "autocast", "adapter"])
def test_a_model_that_overflows_is_computed_in_float32_and_said_once(way, capsys):
    exact = states(build("overflow"))
    model = in_float16(build("overflow"), way)
    leave_float16(model, ROWS)
    leave_float16(model, ROWS)
    assert capsys.readouterr().out == LINE
    assert is_float32_instead(model)
    assert autocast_dtype(model) is None
    found = states(model)
    assert found.isfinite().all()
    assert (found - exact).norm() <= 0.02 * exact.norm()  # the weights themselves are rounded


@pytest.mark.parametrize("overrides", [["adapter=lora", "model.dtype=float16"], ["trainer.precision=16-mixed"]])
@pytest.mark.parametrize("overflows", [True, False])
def test_training_decides_before_it_begins_and_plans_with_it(base_dir, tmp_path, capsys, overrides, overflows):
    folder = shutil.copytree(base_dir, tmp_path / "base")
    if overflows:
        saved = load_file(folder / "model.safetensors")
        weights = {name: value * (3000 if "_proj" in name and "mlp" in name else 1) for name, value in saved.items()}
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    common = ("trainer.max_epochs=1", "trainer.accelerator=cpu", "logger=none", "max_tokens=128", "batch_tokens=512")
    asked = settings(f"model.name_or_path={folder}", *common, *overrides)
    learner = Learner.load(asked, LabelSoftmax(), PROMPT, EXAMPLES, EXAMPLES[:2])
    assert (LINE in capsys.readouterr().out) == overflows
    assert learner.spec.precision == ("32-true" if overflows else "16-mixed")
    assert learner.spec.dtype == (torch.float32 if overflows or "adapter=lora" not in overrides else torch.float16)
    assert autocast_dtype(learner.model) == (None if overflows else torch.float16)
    if overflows:
        assert {p.dtype for p in learner.model.parameters()} == {torch.float32}
    learner.learn(tmp_path, [])


@pytest.mark.parametrize("way", ["weights", "autocast", "adapter"])
def test_a_model_that_fits_stays_in_float16(way, capsys):
    model = in_float16(build("none"), way)
    leave_float16(model, ROWS)
    assert capsys.readouterr().out == ""
    assert not is_float32_instead(model)
    assert autocast_dtype(model) == (None if way == "weights" else torch.float16)
    assert fits_float16(model, [])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_dtypes_are_not_tried(dtype, capsys):
    model = build("overflow").to(dtype)
    leave_float16(model, ROWS)
    assert fits_float16(model, ROWS)
    assert not is_float32_instead(model)
    assert capsys.readouterr().out == ""


WIDE, USUAL = 7, 20  # a token whose state is beyond float16 but not float32, and the first usual one


def gemma(wide: float = 2e4) -> Any:
    """A random Gemma-2 in float16 that overflows in rows with the token WIDE: embeddings are multiplied by 8."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 16, "vocab_size": 100}
    config = Gemma2Config(**sizes, num_attention_heads=4, num_key_value_heads=2)
    model = Gemma2ForCausalLM(config).half().eval()
    with torch.no_grad():
        model.model.embed_tokens.weight[WIDE] = wide
    return model


def prompts(num_wide: int) -> list[EncodedPrompt]:
    rows = [np.arange(USUAL, USUAL + 6 + n, dtype=np.int32) for n in range(8)]
    for row in rows[:num_wide]:
        row[1] = WIDE
    return [EncodedPrompt(str(n), 0, "", row, False) for n, row in enumerate(rows)]


@pytest.mark.parametrize(("num_wide", "is_whole"), [(0, False), (1, False), (3, False), (6, True)])
def test_gemma_predicts_in_float16_and_single_rows_that_overflow_in_float32(num_wide, is_whole, capsys):
    labels, counts = LabelTokens(("A", "B"), ((30,), (40,)), (("A",), ("B",)), 0), Counter()
    exact = predict_labels(gemma().float(), LabelSoftmax(), prompts(num_wide), labels, 64)
    model = gemma()
    leave_float16(model, [prompt.token_ids for prompt in prompts(num_wide)], MAX_OVERFLOWING)
    found = predict_labels(model, LabelSoftmax(), prompts(num_wide), labels, 64, counts=counts)
    assert np.abs(found.probs - exact.probs).max() < 5e-3
    assert is_float32_instead(model) == is_whole
    assert counts["num_in_float32"] == (0 if is_whole else num_wide)
    assert counts["num_prior"] == 0
    assert (LINE in capsys.readouterr().out) == is_whole


def test_where_rows_cannot_be_run_again_one_that_overflows_decides():
    model = gemma()
    leave_float16(model, [prompt.token_ids for prompt in prompts(1)])
    assert is_float32_instead(model)


@pytest.mark.parametrize(
    ("overrides", "dtype"),
    [
        (("trainer.max_epochs=0",), torch.float16),
        (("trainer.max_epochs=0", "head=vocabulary"), torch.float16),
        (("trainer.max_epochs=1", "adapter=lora"), torch.float32),
        (("trainer.max_epochs=0", "task=instruct"), torch.float32),  # written texts have no second run
    ],
)
def test_gemma_on_a_t4_is_float16_where_rows_can_be_run_again(overrides, dtype):
    given = settings("model=gemma2_9b", *overrides)
    assert resolve(given, gemma().config, sheet=SHEETS["t4"]).dtype == dtype
    assert resolve(given, gemma().config, sheet=SHEETS["l4"]).dtype == torch.bfloat16
