"""The token budget of a run with max_tokens=auto: chosen once, kept with the fold, read where it answers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nexttoken.data.files import read_json, write_json
from nexttoken.engine.answerers import AnyEncoder
from nexttoken.engine.heads import Head
from nexttoken.engine.memory_plan.longest import Budget, Need, choose_budget
from nexttoken.errors import UserError
from nexttoken.models.collective import from_first
from nexttoken.models.load import choose_device
from nexttoken.prompts.encoded import EncodedTexts
from nexttoken.settings import AUTO, Settings
from nexttoken.types import Example

FILE = "budget.json"


def settle(
    settings: Settings, config: Any, encoder: AnyEncoder, head: Head, examples: Sequence[Example], fold_dir: Path | None
) -> Budget:
    """The budget that the fold was begun with, else a new one, the same in every process.

    Only the first process looks for the file: another may find what the first has just written.
    """

    def make() -> Budget:
        if fold_dir is not None and not settings.overwrite and (fold_dir / FILE).exists():
            return read_budget(fold_dir)
        need = measure(encoder, head, examples, settings.generation.max_new_tokens)
        return choose_budget(settings, config, choose_device(), need)

    return from_first(make)


def measure(encoder: AnyEncoder, head: Head, examples: Sequence[Example], max_new_tokens: int = 0) -> Need:
    """What `examples` need when nothing is cut, answers of `max_new_tokens` among it; `encoder` has no limit."""
    encoded = encoder.encode(examples)
    longest = max(len(prompt.token_ids) for prompt in encoded.prompts)
    if isinstance(encoded, EncodedTexts):
        asked = (len(prompt.token_ids) - prompt.num_targets for prompt in encoded.prompts)
        longest = max(longest, max(asked) + max_new_tokens)
    return Need(longest + encoded.labels.longest, len(head.contexts(encoded.labels)))


def save_budget(budget: Budget, fold_dir: Path) -> None:
    write_json(budget.as_dict(), fold_dir / FILE)


def read_budget(fold_dir: Path) -> Budget:
    """Raises UserError for a file that `save_budget` did not write, and where there is none."""
    saved = read_json(fold_dir / FILE)
    tokens, reason = saved.get("max_tokens"), saved.get("reason")
    if not isinstance(tokens, int) or not tokens > 0 or not isinstance(reason, str):
        raise UserError(
            f"{fold_dir / FILE} does not hold a budget of tokens; train this fold again with overwrite=true"
        )
    return Budget(tokens, reason)


def with_budget(settings: Settings, fold_dir: Path) -> Settings:
    """The settings of a finished fold with the number that was chosen for it."""
    if settings.max_tokens != AUTO:
        return settings
    return settings.model_copy(update={"max_tokens": read_budget(fold_dir).max_tokens})
