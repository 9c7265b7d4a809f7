"""Requests to vLLM. vLLM itself was not run: a stand-in takes its place and records the calls."""

import json
import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nexttoken.engine.generation import vllm
from nexttoken.engine.generation.writer import GeneratedText, GenerationPrompt
from nexttoken.errors import UserError
from nexttoken.settings import GenerationSettings

ROWS = [GenerationPrompt(id, np.arange(length, dtype=np.int32)) for id, length in (("a", 4), ("b", 95), ("c", 2))]
COMPLETIONS = {  # by prompt length: text, token ids, why it ended, at what
    4: (" done", [5, 6, 2], "stop", None),  # the end of text
    95: (" cut �", [5, 6, 7, 8, 9], "length", None),
    2: ("said ", [5, 6], "stop", "###"),  # a stop text
}


@dataclass
class Asked:
    engine: dict = field(default_factory=dict)
    prompts: list = field(default_factory=list)
    params: list = field(default_factory=list)
    adapters: list = field(default_factory=list)


@pytest.fixture
def asked(monkeypatch) -> Asked:
    record = Asked()

    class LLM:
        def __init__(self, **options: Any) -> None:
            record.engine = options
            self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=100))

        def generate(self, prompts, sampling_params, lora_request, use_tqdm):
            record.prompts.append(prompts)
            record.params += [params.options for params in sampling_params]
            record.adapters.append(lora_request)
            names = ("text", "token_ids", "finish_reason", "stop_reason")
            found = [COMPLETIONS[len(prompt["prompt_token_ids"])] for prompt in prompts]
            return [SimpleNamespace(outputs=[SimpleNamespace(**dict(zip(names, c, strict=True)))]) for c in found]

    class SamplingParams:
        def __init__(self, **options: Any) -> None:
            self.options = options

    modules = {name: ModuleType(name) for name in ("vllm", "vllm.lora", "vllm.lora.request")}
    modules["vllm"].LLM, modules["vllm"].SamplingParams = LLM, SamplingParams
    modules["vllm.lora.request"].LoRARequest = lambda *parts: parts
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return record


def test_settings_are_translated(asked):
    settings = GenerationSettings(
        max_new_tokens=20, repetition_penalty=1.1, temperature=0.7, top_p=0.9, banned=["##"], stop=["###"], seed=5
    )
    generator = vllm.VLLMGenerator("model", None, {7, 2}, gpu_memory_utilization=0.8)
    list(generator.write(ROWS, settings))
    assert asked.engine == {"model": "model", "generation_config": "vllm", "gpu_memory_utilization": 0.8}
    assert [len(prompt["prompt_token_ids"]) for prompt in asked.prompts[0]] == [4, 95, 2]
    assert asked.adapters == [None]
    seeds = [params.pop("seed") for params in asked.params]
    assert len(set(seeds)) == 3
    assert [params.pop("max_tokens") for params in asked.params] == [20, 5, 20], "the context bounds the second row"
    assert asked.params[0] == {
        "temperature": 0.7,
        "top_p": 0.9,
        "repetition_penalty": 1.1,
        "stop": ["###"],
        "stop_token_ids": [2, 7],
        "bad_words": ["##"],
        "ignore_eos": False,
        "skip_special_tokens": True,
        "include_stop_str_in_output": False,
    }


def test_a_rows_seed_is_its_own():
    options = [
        vllm.sampling_options(id, 9, GenerationSettings(seed=seed), [2]) for id, seed in (("a", 0), ("b", 0), ("a", 1))
    ]
    assert len({own["seed"] for own in options}) == 3
    assert options[0] == vllm.sampling_options("a", 9, GenerationSettings(seed=0), [2])
    assert options[0]["temperature"] == 0.0


def test_completions_become_rows(asked):
    rows = list(vllm.VLLMGenerator("model", None, [2]).write(ROWS, GenerationSettings(stop=["###"])))
    assert [(row.id, row.output, row.num_tokens, row.finished) for row in rows] == [
        ("a", "done", 2, True),  # without its end token
        ("b", "cut", 5, False),  # without the half of a character
        ("c", "said", 2, True),
    ]
    assert isinstance(rows[0], GeneratedText)


def test_an_adapter_comes_with_its_rank(asked, tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 64}))
    list(vllm.VLLMGenerator("model", tmp_path, [2]).write(ROWS, GenerationSettings()))
    assert (asked.engine["enable_lora"], asked.engine["max_lora_rank"]) == (True, 64)
    assert asked.adapters == [("adapter", 1, str(tmp_path))]
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 12}))
    vllm.VLLMGenerator("model", tmp_path, [2])
    assert asked.engine["max_lora_rank"] == 16, "the next one that vLLM takes"


def test_rows_are_asked_for_in_chunks(asked, monkeypatch):
    monkeypatch.setattr(vllm, "CHUNK_PROMPTS", 2)
    rows = vllm.VLLMGenerator("model", None, [2]).write(ROWS, GenerationSettings(max_new_tokens=20))
    assert [next(rows).id, next(rows).id] == ["a", "b"]
    assert len(asked.prompts) == 1, "a row is there before the last one is asked for"
    assert next(rows).id == "c"
    assert [params["max_tokens"] for params in asked.params] == [20, 5, 20]


def test_empty_texts_are_refused():
    with pytest.raises(UserError, match="empty text"):
        vllm.sampling_options("a", 9, GenerationSettings(banned=[""]), [2])
