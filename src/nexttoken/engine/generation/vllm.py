"""Text generation with vLLM, which is faster on a GPU; docs/generation.md describes installation and differences."""

import hashlib
import json
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from nexttoken.engine.generation.vocabulary import encode_texts
from nexttoken.engine.generation.writer import GeneratedText, GenerationPrompt, max_new_tokens
from nexttoken.settings import GenerationSettings

ADAPTER_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # values that vLLM accepts for max_lora_rank
CHUNK_PROMPTS = 256  # in one call: a kill loses at most this many answers


class VLLMGenerator:
    """The model in `model_path`, with the LoRA adapter in `adapter_path` if given; `options` go to `vllm.LLM`."""

    def __init__(
        self, model_path: str | Path, adapter_path: str | Path | None, stop_ids: Collection[int], **options: Any
    ) -> None:
        import vllm  # build refuses engine=vllm without it

        self.stop_ids, self._adapter, self._params = sorted({*stop_ids}), None, vllm.SamplingParams
        if adapter_path is not None:
            from vllm.lora.request import LoRARequest

            self._adapter = LoRARequest("adapter", 1, str(adapter_path))
            rank = json.loads((Path(adapter_path) / "adapter_config.json").read_text(encoding="utf-8"))["r"]
            max_rank = next((accepted for accepted in ADAPTER_RANKS if accepted >= rank), rank)
            options = {"enable_lora": True, "max_lora_rank": max_rank, **options}
        # generation_config="vllm": the model's generation_config.json is ignored
        self._engine = vllm.LLM(model=str(model_path), generation_config="vllm", **options)
        self.context = self._engine.llm_engine.model_config.max_model_len

    def write(self, prompts: Sequence[GenerationPrompt], settings: GenerationSettings) -> Iterator[GeneratedText]:
        """Yield the answers, `CHUNK_PROMPTS` at a time. Raises UserError for a prompt that fills the context."""
        limits = max_new_tokens(prompts, settings.max_new_tokens, self.context)
        for start in range(0, len(prompts), CHUNK_PROMPTS):
            chunk, began = prompts[start : start + CHUNK_PROMPTS], time.perf_counter()
            token_ids = [{"prompt_token_ids": prompt.token_ids.tolist()} for prompt in chunk]
            params = [
                self._params(**sampling_options(prompt.id, limit, settings, self.stop_ids))
                for prompt, limit in zip(chunk, limits[start:], strict=False)
            ]
            outputs = self._engine.generate(token_ids, params, lora_request=self._adapter, use_tqdm=False)
            seconds = (time.perf_counter() - began) / len(chunk)
            for prompt, output in zip(chunk, outputs, strict=True):
                yield _generated(prompt.id, output.outputs[0], seconds)


def sampling_options(id: str, limit: int, settings: GenerationSettings, stop_ids: Sequence[int]) -> dict[str, Any]:
    """The settings as keyword arguments of `vllm.SamplingParams`. Raises UserError for an empty banned or stop text."""
    encode_texts([*settings.stop, *settings.banned], "stop or banned")
    name = f"{settings.seed}:{id}".encode("utf-8", "surrogatepass")
    return {
        "max_tokens": limit,
        "temperature": settings.temperature,
        "top_p": settings.top_p if settings.temperature else 1.0,
        "repetition_penalty": settings.repetition_penalty,
        "seed": int.from_bytes(hashlib.sha256(name).digest()[:4]),
        "stop": settings.stop,
        "stop_token_ids": [*stop_ids],
        "bad_words": settings.banned,
        "ignore_eos": False,
        "skip_special_tokens": True,
        "include_stop_str_in_output": False,
    }


def _generated(id: str, completion: Any, seconds: float) -> GeneratedText:
    """An answer of vLLM, whose tokens include the end token; its `stop_reason` is a text if a stop text ended it."""
    finished = completion.finish_reason == "stop"
    num_tokens = len(completion.token_ids) - (finished and not isinstance(completion.stop_reason, str))
    text = completion.text if finished else completion.text.rstrip("\ufffd")
    return GeneratedText(id, text.strip(), num_tokens, finished, seconds)
