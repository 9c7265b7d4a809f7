"""Examples in, texts out: an encoder and an engine that continues its prompts, with a journal of finished rows."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from nexttoken.engine.journal import Journal
from nexttoken.errors import UserError, first_five
from nexttoken.models.processes import num_ranks
from nexttoken.progress import Progress
from nexttoken.prompts.encode_texts import TextEncoder
from nexttoken.prompts.encoded import EncodedText
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
    """The answer to one prompt.

    `output` has no special tokens, no stop text and no surrounding white space. `num_tokens` counts the tokens before
    the end token, those of a stop text included. `finished` is False if the length limit ended the answer. `seconds`
    is its share of its batch's time.
    """

    id: str
    output: str
    num_tokens: int
    finished: bool
    seconds: float


def max_new_tokens(prompts: Sequence[GenerationPrompt], wanted: int, context: int | None) -> list[int]:
    """The number of new tokens each row may get: `wanted`, or what its prompt leaves of the `context`, if it has one.

    Prints the rows that get fewer than wanted. Raises UserError for a prompt without tokens, and for one that fills the
    context.
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
        ...


@dataclass(frozen=True)
class Writer:
    """An encoder and an engine."""

    encoder: TextEncoder
    generator: Generator

    def write(
        self,
        examples: Sequence[Example],
        settings: GenerationSettings,
        journal: Path | None = None,
        made_by: str = "",
    ) -> TextPredictions:
        """Write an answer to each example that `journal` does not hold yet; `made_by` identifies the model."""
        encoded = self.encoder.encode_prompts(examples, settings.max_new_tokens)
        _report_cut(encoded.prompts)
        prompts = [GenerationPrompt(row.id, row.token_ids) for row in encoded.prompts]
        return generate(self.generator, prompts, settings, journal, made_by)


def generate(
    generator: Generator,
    prompts: Sequence[GenerationPrompt],
    settings: GenerationSettings,
    journal: Path | None = None,
    identity: str = "",
) -> TextPredictions:
    """The answers in the order of `prompts`, with the columns `num_tokens`, `finished` and `seconds` of GeneratedText.

    With a `journal` every answer is saved as soon as it is written, and a killed run continues from it. `identity`
    identifies the model; a journal of another model, engine or settings is refused.
    Raises UserError for duplicate ids, for more than one process, for missing answers, and what the generator raises.
    """
    if num_ranks() > 1:
        raise UserError(f"answers are written by one process, not {num_ranks()}; use devices=1, or vLLM for many GPUs")
    counts = Counter(prompt.id for prompt in prompts)
    if twice := [id for id, count in counts.items() if count > 1]:
        raise UserError(f"{len(twice)} ids are there twice ({first_five(twice)}); expected one row per id")
    keys = {prompt.id: prompt.key for prompt in prompts}
    asked = {"model": identity, "engine": type(generator).__name__, "settings": settings.model_dump()}
    with Journal(journal, asked, GeneratedText) as saved:
        left = [prompt for prompt in prompts if keys[prompt.id] not in saved.rows]
        for row in _with_progress(generator.write(left, settings) if left else iter(()), len(left), len(prompts)):
            saved.add(keys[row.id], row)
    if lost := [id for id, key in keys.items() if key not in saved.rows]:
        raise UserError(f"the engine wrote no answer to {len(lost)} rows ({first_five(lost)}); start it again")
    rows = [saved.rows[keys[prompt.id]] for prompt in prompts]
    columns = {
        "num_tokens": np.array([row.num_tokens for row in rows], dtype=np.int64),
        "finished": np.array([row.finished for row in rows], dtype=bool),
        "seconds": np.array([row.seconds for row in rows], dtype=np.float64),
    }
    return TextPredictions(tuple(row.id for row in rows), tuple(row.output for row in rows), columns)


def _with_progress(written: Iterator[GeneratedText], num_left: int, num_rows: int) -> Iterator[GeneratedText]:
    if num_left < num_rows:
        print(f"{num_rows - num_left} of {num_rows} answers are in the journal already")
    num_tokens = 0
    with Progress(num_rows, "generate") as progress:
        progress.start_at(num_rows - num_left)
        for row in written:
            yield row
            num_tokens += row.num_tokens
            progress.advance(1, f"{num_tokens} tokens written")


def _report_cut(rows: Sequence[EncodedText]) -> None:
    if num_cut := sum(row.was_cut for row in rows):
        lost = [row.share_cut for row in rows if row.share_cut]  # the others gave up demonstrations or passages only
        share = f"{len(lost)} lost {np.mean(lost):.0%} of their own text on average" if lost else "demonstrations only"
        print(f"{num_cut} of {len(rows)} prompts were shortened: {share}")
