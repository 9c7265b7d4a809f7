"""Text generation with transformers' `generate`, in batches whose prompts do not influence each other."""

import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig, StoppingCriteriaList, TemperatureLogitsWarper, TopPLogitsWarper

from nexttoken.engine.batches import token_batches
from nexttoken.engine.float16_trial import leave_float16
from nexttoken.engine.forward.last_layer import unwrapped
from nexttoken.engine.forward.shortcuts import evaluating
from nexttoken.engine.generation.processors import BannedTexts, Ending, FirstNonFinite, GumbelNoise, StopTexts, find_end
from nexttoken.engine.generation.shared_prefix import SharedPrefix
from nexttoken.engine.generation.vocabulary import GeneratedBytes, Vocabulary, encode_texts
from nexttoken.engine.generation.writer import GeneratedText, GenerationPrompt, max_new_tokens
from nexttoken.engine.run_batches import halves
from nexttoken.errors import UserError, first_five
from nexttoken.models.memory import go_on_in_halves, is_out_of_memory
from nexttoken.models.precision import computing
from nexttoken.models.streamed import layer_stream
from nexttoken.settings import GenerationSettings


@dataclass(frozen=True)
class Request:
    """The settings, encoded for the processors, and the common prefix of all prompts: made once for all batches."""

    settings: GenerationSettings
    stops: list[bytes]
    banned: BannedTexts | None
    prefix: SharedPrefix


class TransformersGenerator:
    """A model that continues prompts, in batches of at most `batch_tokens` tokens, prompt and answer together.

    `stop_ids` end an answer: end of text, and end of turn in chats. The model's other defaults are ignored.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, batch_tokens: int, stop_ids: Collection[int]) -> None:
        if not stop_ids:
            raise UserError("no token ends an answer; expected at least the tokenizer's end of text in stop_ids")
        if layer_stream(model) is not None:
            raise UserError("each new token would read all layers from their files; use stream_layers=false")
        self.model: Any = unwrapped(model)
        self.tokenizer, self.batch_tokens, self.stop_ids = tokenizer, batch_tokens, sorted({*stop_ids})

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.tokenizer)

    def write(self, prompts: Sequence[GenerationPrompt], settings: GenerationSettings) -> Iterator[GeneratedText]:
        """Yield the answers, batch by batch, those with the longest prompts first.

        Greedy answers equal those of `model.generate` for each prompt alone. Batches are halved once if memory is full.
        Raises UserError for a prompt that fills the context, for scores that are not finite (after the other answers of
        their batch), and for a single prompt that does not fit in memory.
        """
        leave_float16(self.model, [prompt.token_ids for prompt in prompts])
        context = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        limits = max_new_tokens(prompts, settings.max_new_tokens, context)
        banned = encode_texts(settings.banned, "banned")
        processor = BannedTexts(banned, self.vocabulary, self.stop_ids) if banned else None
        stops = encode_texts(settings.stop, "stop")
        request, halved = Request(settings, stops, processor, SharedPrefix(self.model, prompts)), False
        waiting = deque(generation_batches(prompts, limits, self.batch_tokens))
        with evaluating(self.model), ExitStack() as stack:
            stack.callback(setattr, self.model, "generation_config", self.model.generation_config)
            self.model.generation_config = GenerationConfig()  # without the model's defaults
            while waiting:
                batch = waiting.popleft()
                chosen = [prompts[number] for number in batch]
                answers = self._write_batch(chosen, limits[batch[0]], request, may_fail=not halved)
                if answers is not None:
                    yield from answers
                    continue
                halved = True
                go_on_in_halves()
                waiting = deque(half for each in (batch, *waiting) for half in halves(each))

    def _write_batch(
        self, prompts: Sequence[GenerationPrompt], limit: int, request: Request, may_fail: bool
    ) -> Iterator[GeneratedText] | None:
        """The answers of one batch; None if memory ran out and the batch `may_fail`."""
        start = time.perf_counter()
        try:
            new_ids, first_bad = self._generate(prompts, limit, request)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if may_fail and len(prompts) > 1:
                return None
            longest, ids = max(len(prompt.token_ids) for prompt in prompts), first_five(prompt.id for prompt in prompts)
            raise UserError(
                f"out of memory while writing {len(prompts)} rows of {longest} + {limit} tokens ({ids}); try"
                f" batch_tokens={self.batch_tokens // 2}, fewer max_new_tokens, shorter prompts (max_tokens) or a"
                " smaller model"
            ) from None
        endings = [find_end(token_ids, self.vocabulary, self.stop_ids, request.stops) for token_ids in new_ids]
        return _finite_answers(prompts, endings, first_bad, time.perf_counter() - start)

    @torch.inference_mode()
    def _generate(
        self, prompts: Sequence[GenerationPrompt], limit: int, request: Request
    ) -> tuple[list[list[int]], list[int]]:
        """The new token ids of each prompt, with padding after the end, and the steps of FirstNonFinite."""
        device = next(self.model.parameters()).device
        input_ids, mask = request.prefix.pad(prompts, self.stop_ids[0])
        width = input_ids.shape[1]
        finite = FirstNonFinite(len(prompts), width, device)
        generated = GeneratedBytes(self.vocabulary, width)
        config = GenerationConfig(
            max_new_tokens=limit,
            do_sample=False,  # also with a temperature: the largest score after GumbelNoise is the draw
            repetition_penalty=request.settings.repetition_penalty,
            eos_token_id=self.stop_ids,
            pad_token_id=self.stop_ids[0],
            use_cache=True,
        )
        with computing(self.model):
            token_ids = self.model.generate(
                input_ids.to(device),
                attention_mask=mask.to(device),
                past_key_values=request.prefix.cache(len(prompts)),
                generation_config=config,
                logits_processor=[finite, *processors(request, prompts, generated, device)],
                stopping_criteria=StoppingCriteriaList([StopTexts(request.stops, generated)] if request.stops else []),
            )
        return token_ids[:, width:].tolist(), finite.first.tolist()


def generation_batches(
    prompts: Sequence[GenerationPrompt], limits: Sequence[int], batch_tokens: int
) -> list[list[int]]:
    """Prompt numbers by batch, with prompts x (longest prompt + limit) <= `batch_tokens`, longest first.

    All prompts of a batch have the same limit: `generate` pads finished answers until the batch ends, and next to a
    higher limit an answer would be padded past the end of the context.
    """
    batches: list[list[int]] = []
    for limit in sorted(set(limits)):  # the lowest limits belong to the longest prompts
        rows = [row for row, other in enumerate(limits) if other == limit]
        lengths = [len(prompts[row].token_ids) + limit for row in rows]
        batches += [[rows[place] for place in batch] for batch in token_batches(lengths, batch_tokens)]
    return batches


def processors(
    request: Request, prompts: Sequence[GenerationPrompt], generated: GeneratedBytes, device: torch.device
) -> list[Any]:
    """Logits processors after the repetition penalty: bans, then temperature and nucleus, then the draw."""
    settings = request.settings
    bans = [request.banned.begin(generated)] if request.banned else []
    if not settings.temperature:
        return bans
    nucleus = [TopPLogitsWarper(settings.top_p)] if settings.top_p < 1 else []
    noise = GumbelNoise(settings.seed, [prompt.id for prompt in prompts], generated.width, device)
    return [*bans, TemperatureLogitsWarper(settings.temperature), *nucleus, noise]


def _finite_answers(
    prompts: Sequence[GenerationPrompt], endings: list[Ending], first_bad: list[int], seconds: float
) -> Iterator[GeneratedText]:
    """Yield a batch's answers with finite scores, then raise UserError for the others.

    `first_bad` (N,): the first step whose scores are not finite, very large if there is none.
    """
    sizes = [len(prompt.token_ids) + ending.num_tokens for prompt, ending in zip(prompts, endings, strict=True)]
    bad: list[str] = []
    for prompt, ending, step, size in zip(prompts, endings, first_bad, sizes, strict=True):
        if step < ending.num_steps:
            bad.append(prompt.id)
        else:
            share = seconds * size / sum(sizes)
            yield GeneratedText(prompt.id, ending.text, ending.num_tokens, ending.finished, share)
    if bad:
        raise UserError(f"the logits are not finite for {len(bad)} rows ({first_five(bad)}); try model.dtype=float32")
