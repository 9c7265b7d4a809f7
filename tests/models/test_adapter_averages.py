"""Averages of adapters: the mean of their products, whatever their ranks and scalings, and what has no mean."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nexttoken.errors import UserError
from nexttoken.models.adapter_averages import nearest_product, read_adapters, save_average

LAYERS = {"base_model.model.q_proj": (6, 10), "base_model.model.v_proj": (4, 10)}  # out, in


def adapter(run: Path, rank: int, seed: int, weights: str = "w", **config: object) -> Path:
    """A saved adapter of random matrices with a classification layer."""
    folder = run / "adapter"
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    tensors = {"base_model.model.score.weight": torch.randn(3, 10)}
    for name, (height, width) in LAYERS.items():
        tensors |= {
            f"{name}.lora_A.weight": torch.randn(rank, width),
            f"{name}.lora_B.weight": torch.randn(height, rank),
        }
    save_file(tensors, folder / "adapter_model.safetensors")
    given = {"r": rank, "lora_alpha": 8, "use_rslora": False, "use_dora": False, "target_modules": ["q_proj", "v_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(given | config))
    (folder / "base.json").write_text(json.dumps({"name": weights, "weights": weights, "tokenizer": "t"}))
    return folder


def products(folder: Path) -> dict[str, torch.Tensor]:
    """The scaled product B A of each layer."""
    weights, config = (
        load_file(folder / "adapter_model.safetensors"),
        json.loads((folder / "adapter_config.json").read_text()),
    )
    scaling = config["lora_alpha"] / (config["r"] ** 0.5 if config["use_rslora"] else config["r"])
    return {n: scaling * weights[f"{n}.lora_B.weight"] @ weights[f"{n}.lora_A.weight"] for n in LAYERS}


def test_the_average_is_the_mean_of_the_scaled_products(tmp_path):
    parts = [adapter(tmp_path / "a", 2, 0), adapter(tmp_path / "b", 3, 1, use_rslora=True, lora_alpha=5)]
    out = tmp_path / "out"
    out.mkdir()
    assert save_average(read_adapters(parts), out) == 5
    expected = [products(part) for part in parts]
    for name, product in products(out).items():
        torch.testing.assert_close(product, (expected[0][name] + expected[1][name]) / 2)
    scores = [load_file(f / "adapter_model.safetensors")["base_model.model.score.weight"] for f in (*parts, out)]
    torch.testing.assert_close(scores[2], (scores[0] + scores[1]) / 2)
    assert json.loads((out / "base.json").read_text())["weights"] == "w"


def test_a_lower_rank_is_the_nearest_product(tmp_path):
    torch.manual_seed(0)
    b, a = torch.randn(6, 5), torch.randn(5, 10)
    left, values, right = torch.linalg.svd(b @ a)
    new_b, new_a = nearest_product(b, a, 2)
    torch.testing.assert_close(new_b @ new_a, left[:, :2] * values[:2] @ right[:2], atol=1e-4, rtol=1e-4)
    assert (new_b.shape, new_a.shape) == ((6, 2), (2, 10))
    wide_b, wide_a = nearest_product(torch.randn(3, 8), torch.randn(8, 10), 5)  # wider than the layer's 3 outputs
    assert (wide_b.shape, wide_a.shape) == ((3, 5), (5, 10))
    parts = [adapter(tmp_path / "a", 2, 0), adapter(tmp_path / "b", 2, 1)]
    for rank, saved in ((1, 1), (4, 4), (9, 4)):
        out = tmp_path / str(rank)
        out.mkdir()
        assert save_average(read_adapters(parts), out, rank) == saved
        assert json.loads((out / "adapter_config.json").read_text())["r"] == saved


def test_what_has_no_mean_is_refused(tmp_path):
    first = adapter(tmp_path / "a", 2, 0)
    with pytest.raises(UserError, match=r"adapter\.dora=true, whose magnitudes are no sum"):
        read_adapters([first, adapter(tmp_path / "dora", 2, 1, use_dora=True)])
    with pytest.raises(UserError, match="stands on other, another base than"):
        read_adapters([first, adapter(tmp_path / "base", 2, 1, weights="other")])
    with pytest.raises(UserError, match=r"adapts other layers than .* \(settings\)"):
        read_adapters([first, adapter(tmp_path / "layers", 2, 1, target_modules=["q_proj"])])
    with pytest.raises(UserError, match="nowhere has no adapter; only runs with adapter=lora can be averaged"):
        read_adapters([first, tmp_path / "nowhere" / "adapter"])
