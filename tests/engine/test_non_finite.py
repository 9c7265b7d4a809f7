"""Rows without finite numbers: run again in float32, else the other rows' mean; only a broken model ends a run."""

from collections import Counter

import numpy as np
import pytest
import torch
import transformers

from nexttoken.engine.answerers import measure_losses
from nexttoken.engine.heads import LabelSoftmax
from nexttoken.engine.label_answerer import predict_labels
from nexttoken.engine.non_finite import computing_in_float32, fill_with_prior
from nexttoken.errors import UserError
from nexttoken.models.adapters import add_adapter
from nexttoken.models.precision import compute_in
from nexttoken.prompts.encode_labels import EncodedPrompt
from nexttoken.prompts.encoded import EncodedText
from nexttoken.prompts.label_tokens import LabelTokens
from nexttoken.settings import AdapterSettings
from support.small_models import SMALL

LABELS = LabelTokens(("A", "B", "C"), ((5,), (7,), (11,)), (("A",), ("B",), ("C",)), 0)
LORA = AdapterSettings(r=4, alpha=8, dropout=0.0, target_modules="all-linear", rslora=False, dora=False, init="default")
POISON = 13


def build(dtype: torch.dtype, tied: bool = False) -> torch.nn.Module:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**SMALL, tie_word_embeddings=tied)
    return transformers.AutoModelForCausalLM.from_config(config).eval().to(dtype)


def prompts(poisoned: set[int], number: int = 8, num_options: int | None = None) -> list[EncodedPrompt]:
    draw = np.random.default_rng(0)
    rows = [draw.integers(20, 90, 5 + n) for n in range(number)]
    for row in poisoned:
        rows[row][-2] = POISON
    return [
        EncodedPrompt(f"r{n}", n % 3, "", row.astype(np.int32), False, num_options=num_options)
        for n, row in enumerate(rows)
    ]


def answers(model, rows, counts=None):
    return predict_labels(model, LabelSoftmax(), rows, LABELS, 60, counts=counts).probs


@pytest.mark.parametrize("kind", ["weights in 16 bit", "autocast", "adapter on 16 bit"])
def test_rows_that_overflow_float16_are_asked_in_float32(kind, capsys):
    rows, model = prompts({2, 5}), build(torch.float32)
    with torch.no_grad():
        model.model.embed_tokens.weight[POISON] = 0
        model.model.embed_tokens.weight[POISON, 0] = 1000.0
        model.model.layers[0].input_layernorm.weight[0] = 300.0  # 300 * sqrt(32) * a weight, for this token only
        model.model.layers[0].self_attn.v_proj.weight[:, 0] *= 100
        model.model.embed_tokens.weight[:POISON, 0] = model.model.embed_tokens.weight[POISON + 1 :, 0] = 0
    exact = answers(model, rows)
    if kind != "autocast":
        model = model.half()
    if kind == "adapter on 16 bit":
        model = add_adapter(model, LORA).eval()
    if kind != "weights in 16 bit":
        compute_in(model, torch.float16)
    counts: Counter[str] = Counter()
    before = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    found = answers(model, rows, counts)
    assert counts == {"num_in_float32": 2}
    assert "float32: 2 rows were run again, since 16 bit gave no finite numbers (r2, r5)" in capsys.readouterr().out
    np.testing.assert_allclose(found[[2, 5]], exact[[2, 5]], atol=2e-2)
    assert {name: parameter.data_ptr() for name, parameter in model.named_parameters()} == before
    capsys.readouterr()
    assert answers(model, prompts(set()), counts).shape == (8, 3)
    assert capsys.readouterr().out == ""


def test_rows_that_float32_does_not_help_have_the_mean_of_the_others(capsys):
    model, rows, counts = build(torch.float32), prompts({1, 6}, num_options=2), Counter()
    with torch.no_grad():
        model.get_input_embeddings().weight[POISON] = torch.nan
    probs = answers(model, rows, counts)
    assert counts == {"num_prior": 2}
    others = np.delete(probs, [1, 6], axis=0)
    np.testing.assert_allclose(probs[[1, 6]], [others.mean(axis=0)] * 2, atol=1e-6)
    assert (probs[:, 2] == 0).all(), "an absent option stays impossible"
    assert "prior: the logits are not finite for 2 rows (r1, r6)" in capsys.readouterr().out


def test_a_model_that_is_broken_for_most_rows_ends_with_their_ids():
    model, rows = build(torch.float32), prompts({0, 1, 2, 3, 5})
    with torch.no_grad():
        model.get_input_embeddings().weight[POISON] = torch.nan
    message = r"not finite for 5 rows \(r0, r1, r2, r3, r5\); try model.dtype=float32"
    with pytest.raises(UserError, match=message):
        answers(model, rows)


def test_the_prior_of_a_question_with_fewer_options_is_theirs():
    rows = prompts(set(), 3)
    rows[2] = EncodedPrompt("r2", None, "", rows[2].token_ids, False, num_options=2)
    probs = np.array([[0.2, 0.2, 0.6], [0.0, 0.4, 0.6], [np.nan] * 3])
    assert fill_with_prior(rows, probs) == 1
    np.testing.assert_allclose(probs[2], [0.25, 0.75, 0.0], atol=1e-6)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_16_bit_model_computes_in_float32_what_its_float32_copy_does(dtype, tied):
    ids = torch.randint(1, 97, (2, 9))
    for bits in (None, 4):
        model = build(dtype, tied=tied)
        if bits:
            with_four_bits(model)
        with torch.inference_mode():
            before = model(input_ids=ids).logits
            with computing_in_float32(model):
                found = model(input_ids=ids).logits
            assert found.dtype == torch.float32
            assert model(input_ids=ids).logits.equal(before), "afterwards the model is as it was"
            if not bits:
                torch.testing.assert_close(found, model.float()(input_ids=ids).logits, atol=1e-5, rtol=1e-5)


def with_four_bits(model: torch.nn.Module) -> None:
    from bitsandbytes.nn import Linear4bit

    for layer in model.model.layers:
        old, options = layer.mlp.up_proj, {"bias": False, "quant_type": "nf4", "compute_dtype": model.dtype}
        layer.mlp.up_proj = Linear4bit(old.in_features, old.out_features, **options)
        layer.mlp.up_proj.load_state_dict({"weight": old.weight})
        layer.mlp.up_proj.support_avx512bf16_for_cpu = False
    model.to("cpu")


def test_losses_of_open_answers_stay_an_error_that_names_ids():
    model, rows = build(torch.float32), prompts({3})
    with torch.no_grad():
        model.get_input_embeddings().weight[POISON] = torch.nan
    texts = [EncodedText(row.id, "", row.token_ids, np.ones(len(row.token_ids), dtype=bool), False) for row in rows]
    with pytest.raises(UserError, match=r"not finite for 1 rows \(r3\)"):
        measure_losses(model, texts, 60)
