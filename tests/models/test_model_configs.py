"""Each conf/model file against the model's published dimensions, and docs/models.md against the files.

`PYTHONPATH=tests python tests/models/test_model_configs.py` writes the table of docs/models.md again.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM

from nexttoken.models.load import estimate_parameters
from support.composed import CONF, composed
from support.model_shapes import SHAPES

FILES = {path.stem: path for path in sorted(CONF.glob("model/*.yaml")) if path.stem not in ("base", "scratch")}
PAGE = CONF.parent / "docs" / "models.md"
HEADING = "| `model=` | hub name | licence | context | 16 bit, GB | 4 bit, GB | prompt format |"
FACTS = re.compile(
    r"Licence: (?P<licence>.+? \((?:not |may be )?gated\))\. Context: (?P<context>[\d,]+) tokens\."
    r" Weights: (?P<half>[\d.]+) GB in 16 bit, (?P<four>[\d.]+) GB in 4 bit\."
    r" Prompt: (?P<prompt>.+?)\.(?: (?P<remark>.+))?"
)
# 4 bits a weight; NF4 with double quantisation adds a scale of 8 bits per 64 weights and of 32 per 256 scales.
NF4 = 0.516
GPTQ = 0.5  # without groups there is one scale per row
# The published counts of some: a wrong dimension in SHAPES moves them.
PUBLISHED = {
    "gemma2_9b": 9_241_705_984,
    "gemma3_4b": 4_300_079_472,
    "llama3_70b": 70_553_706_496,
    "mistral_7b": 7_248_023_552,
    "phi4": 14_659_507_200,
    "qwen2_5_7b": 7_615_616_512,
    "qwen3_8b": 8_190_735_360,
    "smollm2_360m": 361_821_120,
    "stablebeluga2_70b_gptq": 68_976_648_192,
}


@dataclass(frozen=True)
class Facts:
    """The facts in the comment on top of a model's file."""

    licence: str
    context: str
    half: str
    four: str
    prompt: str
    remark: str


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load(FILES[name].read_text(encoding="utf-8"))


def facts(name: str) -> Facts:
    lines = FILES[name].read_text(encoding="utf-8").splitlines()
    comment = " ".join(line.removeprefix("# ") for line in lines[1:] if line.startswith("# "))
    found = FACTS.fullmatch(comment)
    assert found, f"{FILES[name].name}: the comment does not have the form of the others: {comment}"
    return Facts(**found.groupdict(default=""))


def build(config: Any) -> nn.Module:
    """The model without memory for its weights."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


@dataclass(frozen=True)
class Size:
    """Parameters of a model: all, and those in linear layers outside the head, which 4 bit compresses."""

    total: int
    linear: int

    def gigabytes(self, linear_bytes: float) -> str:
        size = (2 * (self.total - self.linear) + linear_bytes * self.linear) / 1e9
        return f"{size:.1f}" if size >= 1 else f"{size:.2f}"


@cache
def size(name: str) -> Size:
    model = build(SHAPES[name]())
    head = model.get_output_embeddings()
    linear = [module for module in model.modules() if isinstance(module, nn.Linear) and module is not head]
    return Size(sum(p.numel() for p in model.parameters()), sum(layer.weight.numel() for layer in linear))


def table() -> str:
    """The Markdown of docs/models.md that follows from the files: one row each, then what else they say."""
    rows = [HEADING, "|---|---|---|---:|---:|---:|---|"]
    remarks: dict[str, list[str]] = {}
    for name in SHAPES:
        said = facts(name)
        hub_name = read(name)["model"]["name_or_path"]
        cells = [f"`{name}`", hub_name, said.licence, said.context, said.half, said.four, f"`{said.prompt}`"]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        for sentence in re.findall(r"\S.+?\.(?= |$)", said.remark):
            remarks.setdefault(sentence, []).append(f"`{name}`")
    return "\n".join([*rows, "", *(f"- {', '.join(names)}: {remark}" for remark, names in remarks.items()), ""])


def test_every_file_has_a_shape_and_every_shape_a_file():
    assert set(FILES) == set(SHAPES)


@pytest.mark.parametrize("name", FILES)
def test_a_file_says_only_what_is_its_own(name):
    """That it composes and builds is in tests/test_config.py, with every other choice."""
    config = read(name)
    assert config["defaults"] == ["base@model"]
    assert set(config) == {"defaults", "model", "max_tokens", "batch_tokens"}
    assert set(config["model"]) == {"name_or_path"}
    context = SHAPES[name]().get_text_config().max_position_embeddings
    assert facts(name).context == f"{context:,}"
    assert config["max_tokens"] <= min(context, config["batch_tokens"])


def test_adapter_and_quantization_are_chosen_beside_the_model():
    config = composed("model=qwen2_5_7b", "adapter=lora", "quantization=nf4", "adapter.r=64")
    assert config["model"]["name_or_path"] == "Qwen/Qwen2.5-7B-Instruct"
    assert (config["fit"]["learning_rate"], config["adapter"]["alpha"]) == (1e-4, 20)
    assert (config["adapter"]["r"], config["quantization"]["bits"], config["max_tokens"]) == (64, 4, 2048)


@pytest.mark.parametrize("name", SHAPES)
def test_two_layers_build_and_take_lora(name):
    config = SHAPES[name](num_hidden_layers=2)
    text = config.get_text_config()
    model = build(config)
    assert model.get_input_embeddings().weight.shape == (text.vocab_size, text.hidden_size)
    assert model.get_output_embeddings().weight.shape == (text.vocab_size, text.hidden_size)
    linear = {n for n, module in model.named_modules() if isinstance(module, nn.Linear)}
    head = {n for n, module in model.named_modules() if module is model.get_output_embeddings()}
    with torch.device("meta"):
        adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert set(adapted.targeted_module_names) == linear - head
    assert any("layers.1." in n for n in linear)


@pytest.mark.parametrize("name", FILES)
def test_the_gigabytes_follow_from_the_shape(name):
    linear_bytes = GPTQ if name.endswith("gptq") else NF4
    assert (facts(name).half, facts(name).four) == (size(name).gigabytes(2), size(name).gigabytes(linear_bytes))


@pytest.mark.parametrize("name", FILES)
def test_the_estimate_of_the_parameters_is_near_their_number(name):
    """It leaves out an untied head, and counts three feed-forward matrices where old architectures have two."""
    assert 0.6 < estimate_parameters(SHAPES[name]()) / size(name).total < 1.4


@pytest.mark.parametrize(("name", "parameters"), PUBLISHED.items())
def test_the_shape_has_the_published_number_of_parameters(name, parameters):
    assert size(name).total == parameters


def test_the_page_shows_the_files():
    assert PAGE.read_text(encoding="utf-8").endswith("\n" + table()), f"out of date; see {Path(__file__).name}"


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(text[: text.index(HEADING)] + table(), encoding="utf-8")
