"""Writes answers with transformers' own `generate`, many rows at a time, as if each had been alone."""

import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from nexttoken.engine.generation.beginning import Beginning
from nexttoken.engine.generation.bounds import batches, bounds
from nexttoken.engine.generation.processors import BannedTexts, GumbelNoise, NotFinite
from nexttoken.engine.generation.rows import GenerationPrompt, Written
from nexttoken.engine.generation.stops import Ended, StopTexts, ended
from nexttoken.engine.generation.vocabulary import Answers, Vocabulary, encoded
from nexttoken.engine.run_batches import halves
from nexttoken.errors import UserError, first_five
from nexttoken.models.memory import go_on_in_halves, is_out_of_memory
from nexttoken.settings import GenerationSettings


@dataclass(frozen=True)
class Wanted:
    """The settings in the form that the processors need, and what all prompts begin with, made once for all batches."""

    settings: GenerationSettings
    stops: list[bytes]
    banned: BannedTexts | None
    beginning: Beginning


class TransformersGenerator:
    """A model that continues prompts, in batches of at most `batch_tokens` tokens, prompt and answer together.

    `stop_ids` end an answer: end of text, and end of turn where the prompt is a chat. What the model's folder says
    about generation (generation_config.json) does not count; the settings do.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, batch_tokens: int, stop_ids: Collection[int]) -> None:
        if not stop_ids:
            raise UserError("no token ends an answer; expected at least the tokenizer's end of text in stop_ids")
        self.model: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
        self.tokenizer, self.batch_tokens, self.stop_ids = tokenizer, batch_tokens, sorted({*stop_ids})

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.tokenizer)

    def write(self, prompts: Sequence[GenerationPrompt], settings: GenerationSettings) -> Iterator[Written]:
        """Yield the answers, batch by batch, those with the longest prompts first.

        Greedy answers are those of `model.generate` for each prompt alone. Memory that is too short halves the batches.
        Raises UserError for a prompt that fills the context, for scores that are not finite (after the good rows of
        their batch), and for a single row that does not fit in memory.
        """
        context = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        most = bounds(prompts, settings.max_new_tokens, context)
        wanted, halved = self._wanted(settings, Beginning(self.model, prompts)), False
        waiting = deque(batches(prompts, most, self.batch_tokens))
        with _ready(self.model):
            while waiting:
                rows = waiting.popleft()
                answers = self._write_batch([prompts[row] for row in rows], most[rows[0]], wanted, may_fail=not halved)
                if answers is None:
                    halved = True
                    go_on_in_halves()
                    waiting = deque(half for batch in (rows, *waiting) for half in halves(batch))
                    continue
                yield from answers.good
                answers.raise_for_bad()

    def _wanted(self, settings: GenerationSettings, beginning: Beginning) -> Wanted:
        banned = encoded(settings.banned, "banned")
        table = BannedTexts(banned, self.vocabulary, self.stop_ids) if banned else None
        return Wanted(settings, encoded(settings.stop, "stop"), table, beginning)

    def _write_batch(
        self, prompts: Sequence[GenerationPrompt], bound: int, wanted: Wanted, may_fail: bool
    ) -> "BatchAnswers | None":
        """The answers of one batch; None when memory was too short for it and it `may_fail`."""
        start = time.perf_counter()
        try:
            new_ids, first_bad = self._generate(prompts, bound, wanted)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if may_fail and len(prompts) > 1:
                return None
            raise UserError(
                f"out of memory while writing {len(prompts)} rows of {max(len(p.token_ids) for p in prompts)} + {bound}"
                f" tokens ({first_five(p.id for p in prompts)}); try batch_tokens={self.batch_tokens // 2}, fewer"
                " max_new_tokens, shorter prompts (max_tokens) or a smaller model"
            ) from None
        answers = [ended(row, self.vocabulary, self.stop_ids, wanted.stops) for row in new_ids]
        return BatchAnswers(prompts, answers, first_bad, time.perf_counter() - start)

    @torch.inference_mode()
    def _generate(
        self, prompts: Sequence[GenerationPrompt], bound: int, wanted: Wanted
    ) -> tuple[list[list[int]], list[int]]:
        """New token ids of each row, with what follows its end, and the step in which its scores went bad."""
        from transformers import GenerationConfig, StoppingCriteriaList

        device = next(self.model.parameters()).device
        input_ids, mask = wanted.beginning.with_rows(prompts, self.stop_ids[0])
        width = input_ids.shape[1]
        finite = NotFinite(len(prompts), width, device)
        answers = Answers(self.vocabulary, width)
        config = GenerationConfig(
            max_new_tokens=bound,
            do_sample=False,  # where there is a temperature, too: the noise has drawn already
            repetition_penalty=wanted.settings.repetition_penalty,  # of transformers, which leaves padding out
            eos_token_id=self.stop_ids,
            pad_token_id=self.stop_ids[0],
            use_cache=True,
        )
        whole = self.model.generate(
            input_ids.to(device),
            attention_mask=mask.to(device),
            past_key_values=wanted.beginning.cache(len(prompts)),
            generation_config=config,
            logits_processor=[finite, *processors(wanted, prompts, answers, device)],
            stopping_criteria=StoppingCriteriaList([StopTexts(wanted.stops, answers)] if wanted.stops else []),
        )
        return whole[:, width:].tolist(), finite.first.tolist()


def processors(
    wanted: Wanted, prompts: Sequence[GenerationPrompt], answers: Answers, device: torch.device
) -> list[Any]:
    """What changes the scores, after the repetition penalty: bans, then temperature and nucleus, then the draw."""
    from transformers import TemperatureLogitsWarper, TopPLogitsWarper

    settings = wanted.settings
    bans = [wanted.banned.begin(answers)] if wanted.banned else []
    if not settings.temperature:
        return bans
    nucleus = [TopPLogitsWarper(settings.top_p)] if settings.top_p < 1 else []
    noise = GumbelNoise(settings.seed, [prompt.id for prompt in prompts], answers.width, device)
    return [*bans, TemperatureLogitsWarper(settings.temperature), *nucleus, noise]


@dataclass(frozen=True)
class BatchAnswers:
    """The answers of a batch, and what may be kept of them."""

    prompts: Sequence[GenerationPrompt]
    answers: list[Ended]
    first_bad: list[int]  # (N,) the step in which a row's scores were first not finite; far off where they were
    seconds: float

    def _is_bad(self) -> list[bool]:
        """Whether a row's scores went bad before it had ended."""
        return [first < answer.num_steps for answer, first in zip(self.answers, self.first_bad, strict=True)]

    @property
    def good(self) -> Iterator[Written]:
        sizes = [len(p.token_ids) + a.num_tokens for p, a in zip(self.prompts, self.answers, strict=True)]
        for prompt, answer, bad, size in zip(self.prompts, self.answers, self._is_bad(), sizes, strict=True):
            if not bad:
                seconds = self.seconds * size / sum(sizes)
                yield Written(prompt.id, answer.text, answer.num_tokens, answer.finished, seconds)

    def raise_for_bad(self) -> None:
        if bad := [prompt.id for prompt, is_bad in zip(self.prompts, self._is_bad(), strict=True) if is_bad]:
            raise UserError(
                f"the model's logits are not finite for {len(bad)} rows ({first_five(bad)}); try model.dtype=float32"
            )


@contextmanager
def _ready(model: Any) -> Iterator[None]:
    """The model in evaluation mode, without defaults of its own, for as long as answers are written."""
    from transformers import GenerationConfig

    training, defaults = model.training, model.generation_config
    model.eval()
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = defaults
        model.train(training)
