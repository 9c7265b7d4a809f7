"""Writes the answers to all prompts, those that are in the journal excepted."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from nexttoken.engine.generation.journal import Journal, key
from nexttoken.engine.generation.rows import GenerationPrompt, Generator, Written
from nexttoken.errors import UserError, first_five
from nexttoken.models.processes import num_ranks
from nexttoken.progress import Progress
from nexttoken.settings import GenerationSettings
from nexttoken.types import TextPredictions


def generate(
    generator: Generator,
    prompts: Sequence[GenerationPrompt],
    settings: GenerationSettings,
    journal: Path | None = None,
    identity: str = "",
) -> TextPredictions:
    """The answers in the order of `prompts`; columns `num_tokens`, `finished` and `seconds`: see `Written`.

    With a `journal` every row is kept as soon as it is written, and the same call goes on where a killed one stopped.
    `identity` says which model writes (a fingerprint): a journal of other settings, engine or identity is refused.
    Raises UserError for ids that are there twice, for more than one process, and what the generator raises.
    """
    if num_ranks() > 1:
        raise UserError(f"answers are written by one process, not {num_ranks()}; use devices=1, or vLLM for many GPUs")
    counts = Counter(prompt.id for prompt in prompts)
    if twice := [id for id, count in counts.items() if count > 1]:
        raise UserError(f"{len(twice)} ids are there twice ({first_five(twice)}); expected one row an id")
    keys = {prompt.id: key(prompt) for prompt in prompts}
    asked = {"model": identity, "engine": type(generator).__name__, "settings": settings.model_dump()}
    with Journal(journal, asked) as kept:
        left = [prompt for prompt in prompts if keys[prompt.id] not in kept.rows]
        for row in _with_progress(generator.write(left, settings) if left else iter(()), len(left), len(prompts)):
            kept.add(keys[row.id], row)
    if lost := [id for id, own in keys.items() if own not in kept.rows]:
        raise UserError(f"the engine wrote no answer to {len(lost)} rows ({first_five(lost)}); start it again")
    return _predictions([kept.rows[keys[prompt.id]] for prompt in prompts])


def _with_progress(written: Iterator[Written], num_left: int, num_rows: int) -> Iterator[Written]:
    if num_left < num_rows:
        print(f"{num_rows - num_left} of {num_rows} answers are in the journal already")
    num_tokens = 0
    with Progress(num_rows, "generate") as progress:
        progress.start_at(num_rows - num_left)
        for row in written:
            yield row
            num_tokens += row.num_tokens
            progress.advance(1, f"{num_tokens} tokens written")


def _predictions(rows: Sequence[Written]) -> TextPredictions:
    columns = {
        "num_tokens": np.array([row.num_tokens for row in rows], dtype=np.int64),
        "finished": np.array([row.finished for row in rows], dtype=bool),
        "seconds": np.array([row.seconds for row in rows], dtype=np.float64),
    }
    return TextPredictions(tuple(row.id for row in rows), tuple(row.text for row in rows), columns)
