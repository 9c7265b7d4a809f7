"""Writes answers with vLLM, in an environment of its own: the same interface, many more tokens a second on a GPU.

See docs/generation.md for how it is installed and where its answers may differ.
"""

import hashlib
import json
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from nexttoken.engine.generation.bounds import bounds
from nexttoken.engine.generation.rows import GenerationPrompt, Written
from nexttoken.engine.generation.vocabulary import encoded
from nexttoken.errors import UserError
from nexttoken.settings import GenerationSettings

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # of adapters, that vLLM makes room for
CHUNK = 256  # rows that are asked for at once: what a kill loses at most


class VLLMGenerator:
    """The model in `model_path`, with the LoRA in `adapter_path` where there is one.

    `options` go to `vllm.LLM` as they are: max_model_len, gpu_memory_utilization, tensor_parallel_size and the like.
    Raises UserError when vLLM is not installed.
    """

    def __init__(
        self,
        model_path: str | Path,
        adapter_path: str | Path | None,
        stop_ids: Collection[int],
        **options: Any,
    ) -> None:
        vllm = _import()
        self.stop_ids, self._adapter = sorted({*stop_ids}), None
        if adapter_path is not None:
            from vllm.lora.request import LoRARequest

            self._adapter = LoRARequest("adapter", 1, str(adapter_path))
            rank = json.loads((Path(adapter_path) / "adapter_config.json").read_text(encoding="utf-8"))["r"]
            options = {"enable_lora": True, "max_lora_rank": next((r for r in RANKS if r >= rank), rank), **options}
        # generation_config="vllm": the folder's generation_config.json does not count, the settings do
        self._engine = vllm.LLM(model=str(model_path), generation_config="vllm", **options)
        self.context = self._engine.llm_engine.model_config.max_model_len

    def write(self, prompts: Sequence[GenerationPrompt], settings: GenerationSettings) -> Iterator[Written]:
        """Yield the answers, `CHUNK` rows at a time; vLLM makes its own batches. Raises UserError for full prompts."""
        most = bounds(prompts, settings.max_new_tokens, self.context)
        for start in range(0, len(prompts), CHUNK):
            rows, began = prompts[start : start + CHUNK], time.perf_counter()
            outputs = self._engine.generate(
                [{"prompt_token_ids": prompt.token_ids.tolist()} for prompt in rows],
                [self._params(p, b, settings) for p, b in zip(rows, most[start:], strict=False)],
                lora_request=self._adapter,
                use_tqdm=False,
            )
            seconds = (time.perf_counter() - began) / len(rows)
            for prompt, output in zip(rows, outputs, strict=True):
                yield _written(prompt.id, output.outputs[0], seconds)

    def _params(self, prompt: GenerationPrompt, bound: int, settings: GenerationSettings) -> Any:
        return _import().SamplingParams(**sampling_options(prompt.id, bound, settings, self.stop_ids))


def sampling_options(id: str, bound: int, settings: GenerationSettings, stop_ids: Sequence[int]) -> dict[str, Any]:
    """The settings as keyword arguments of `vllm.SamplingParams`. Raises UserError for an empty banned or stop text."""
    encoded([*settings.stop, *settings.banned], "stop or banned")
    name = f"{settings.seed}:{id}".encode("utf-8", "surrogatepass")
    return {
        "max_tokens": bound,
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


def _written(id: str, completion: Any, seconds: float) -> Written:
    """vLLM lists an end token among the tokens; `stop_reason` is a text where a stop text ended the answer."""
    finished = completion.finish_reason == "stop"
    num_tokens = len(completion.token_ids) - (finished and not isinstance(completion.stop_reason, str))
    text = completion.text if finished else completion.text.rstrip("\ufffd")
    return Written(id, text.strip(), num_tokens, finished, seconds)


def _import() -> Any:
    try:
        import vllm
    except ModuleNotFoundError:
        raise UserError(
            "engine vllm is not installed here; it needs an environment of its own (docs/generation.md), or use the"
            " engine of transformers"
        ) from None
    return vllm
