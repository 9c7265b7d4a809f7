"""Answers to examples as texts: an encoder, an engine that continues its prompts, and a journal of finished answers."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from nexttoken.engine.journal import Journal
from nexttoken.errors import UserError, first_five
from nexttoken.models.processes import num_ranks
from nexttoken.progress import Progress
from nexttoken.prompts.encode_texts import TextEncoder
from nexttoken.settings import GenerationSettings
from nexttoken.types import Example, TextPredictions


@dataclass(frozen=True, slots=True)
class GenerationPrompt:
    """The prompt of one example: `token_ids` (T,) int32 end where the answer begins."""

    id: str
    token_ids: np.ndarray

    @property
    def key(self) -> str:
        """Hash of id and tokens: a changed prompt is written again."""
        tokens = self.token_ids.astype("<i4").tobytes()
        return hashlib.sha256(self.id.encode("utf-8", "surrogatepass") + b"\0" + tokens).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class GeneratedText:
    """The answer to one prompt: `output` has no special tokens, no stop text and no surrounding white space.

    `num_tokens` counts the tokens before the end token, those of a stop text included. `finished` is False if the
    length limit ended the answer. `seconds` is its share of its batch's time.
    """

    id: str
    output: str
    num_tokens: int
    finished: bool
    seconds: float


def ignore(_: GeneratedText) -> None:
    """Do nothing with an answer."""


def max_new_tokens(prompts: Sequence[GenerationPrompt], wanted: int, context: int | None) -> list[int]:
    """The limit of new tokens of each prompt: `wanted`, or the rest of the model's `context` where that is less.

    Prints the ids of prompts with less. Raises UserError for a prompt that has no tokens or fills the context.
    """
    if empty := [prompt.id for prompt in prompts if not len(prompt.token_ids)]:
        raise UserError(f"{len(empty)} prompts have no tokens ({first_five(empty)}); a model needs at least one")
    if context is None:
        return [wanted] * len(prompts)
    left = [context - len(prompt.token_ids) for prompt in prompts]
    if full := [prompt.id for prompt, number in zip(prompts, left, strict=True) if number < 1]:
        raise UserError(
            f"{len(full)} prompts fill the model's context of {context} tokens ({first_five(full)}); lower max_tokens"
            f" to {max(context - wanted, 1)} or less"
        )
    if short := [prompt.id for prompt, number in zip(prompts, left, strict=True) if number < wanted]:
        print(
            f"{len(short)} rows can write fewer than max_new_tokens={wanted}: the model's context holds"
            f" {context} tokens ({first_five(short)})"
        )
    return [min(number, wanted) for number in left]


class Generator(Protocol):
    """An engine that continues prompts."""

    def write(self, prompts: Sequence[GenerationPrompt], settings: GenerationSettings) -> Iterator[GeneratedText]:
        """Yield each prompt's answer as soon as it is finished, in any order."""


@dataclass(frozen=True)
class Writer:
    """An encoder and an engine that continues its prompts."""

    encoder: TextEncoder
    generator: Generator

    def write(
        self,
        examples: Sequence[Example],
        settings: GenerationSettings,
        journal: Path | None = None,
        made_by: str = "",
        seen: Callable[[GeneratedText], None] = ignore,
    ) -> TextPredictions:
        """Write an answer to each example that `journal` does not have yet; `made_by` identifies the model.

        `seen` is called with each answer as soon as it is there.
        """
        encoded = self.encoder.encode_prompts(examples, settings.max_new_tokens).prompts
        if num_cut := sum(prompt.was_cut for prompt in encoded):
            lost = [
                prompt.share_cut for prompt in encoded if prompt.share_cut
            ]  # the others lost passages or solved examples
            share = f"{len(lost)} lost {np.mean(lost):.0%} of their own text on average" if lost else ""
            print(f"{num_cut} of {len(encoded)} prompts were shortened: {share or 'demonstrations only'}")
        prompts = [GenerationPrompt(prompt.id, prompt.token_ids) for prompt in encoded]
        return generate(self.generator, prompts, settings, journal, made_by, seen)


def generate(
    generator: Generator,
    prompts: Sequence[GenerationPrompt],
    settings: GenerationSettings,
    journal: Path | None = None,
    identity: str = "",
    seen: Callable[[GeneratedText], None] = ignore,
) -> TextPredictions:
    """The answers in the order of `prompts`, with the columns `num_tokens`, `finished` and `seconds` of GeneratedText.

    A `journal` saves every answer at once; a killed run continues from it. `identity` identifies the model. `seen` is
    called with each answer, also with those of the journal.
    Raises UserError for a journal of another model, engine or settings, for duplicate ids, for more than one process,
    for missing answers, and what the generator raises.
    """
    if num_ranks() > 1:
        raise UserError(f"answers are written by one process, not {num_ranks()}; use devices=1, or vLLM for many GPUs")
    counts = Counter(prompt.id for prompt in prompts)
    if twice := [id for id, count in counts.items() if count > 1]:
        raise UserError(f"{len(twice)} ids are there twice ({first_five(twice)}); expected one row per id")
    keys = {prompt.id: prompt.key for prompt in prompts}
    settings_now = {"model": identity, "engine": type(generator).__name__, "settings": settings.model_dump()}
    num_tokens = 0
    with Journal(journal, settings_now, GeneratedText) as saved, Progress(len(prompts), "generate") as progress:
        left = [prompt for prompt in prompts if keys[prompt.id] not in saved.rows]
        if num_saved := len(prompts) - len(left):
            print(f"{num_saved} of {len(prompts)} answers are in the journal already")
            progress.start_at(num_saved)
            for key in keys.values() & saved.rows.keys():
                seen(saved.rows[key])
        for answer in generator.write(left, settings) if left else ():
            saved.add(keys[answer.id], answer)
            seen(answer)
            num_tokens += answer.num_tokens
            progress.advance(1, f"{num_tokens} tokens written")
    if lost := [id for id, key in keys.items() if key not in saved.rows]:
        raise UserError(f"the engine wrote no answer to {len(lost)} rows ({first_five(lost)}); start it again")
    answers = [saved.rows[key] for key in keys.values()]
    columns = {
        "num_tokens": np.array([answer.num_tokens for answer in answers], dtype=np.int64),
        "finished": np.array([answer.finished for answer in answers], dtype=bool),
        "seconds": np.array([answer.seconds for answer in answers], dtype=np.float64),
    }
    return TextPredictions(tuple(keys), tuple(answer.output for answer in answers), columns)
