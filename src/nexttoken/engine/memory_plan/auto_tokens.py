"""max_tokens=auto and batch_tokens=auto: the longest prompt and the largest batch that this device has memory for.

max_tokens is chosen once and saved with the fold; batch_tokens is chosen anew by each command.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nexttoken.data.files import read_json, write_json
from nexttoken.engine.heads import Head
from nexttoken.engine.memory_plan.advice import FEWEST_TOKENS
from nexttoken.engine.memory_plan.make import no_side_effects, plan_parts
from nexttoken.engine.memory_plan.table import MemoryPlan, in_units
from nexttoken.errors import UserError
from nexttoken.models.load import ModelSpec
from nexttoken.models.processes import from_first
from nexttoken.prompts.encoded import EncodedTexts
from nexttoken.settings import AUTO, Settings
from nexttoken.types import Example

FILE = "budget.json"
SPARE_SHARE = 0.1  # of the free memory: for what the plan does not count, such as fragmentation
ROUNDING = 64  # max_tokens chosen by the examples is a multiple, so that a slightly longer one is not cut later
DEFAULT_CONTEXT = 2048  # for a model whose configuration gives no context
LENGTHENING_KEYS = ("search", "num_demonstrations")  # of an inference that adds passages or solved examples to a prompt

# Tokens beyond which batches are no faster: a CPU's caches are full early, a GPU is fully occupied by then.
SUFFICIENT_TOKENS = {"cpu": 1024}
SUFFICIENT_TOKENS_GPU = 65_536
DEQUANTISING_FACTOR = 2  # on CPUs, where each batch dequantises the weights
UNPLANNED_TOKENS = 4096  # the most where the memory is unknown
UNKNOWN_MEMORY = "what memory it takes, or how much is free, is unknown"


@dataclass(frozen=True)
class Longest:
    """Length of the longest uncut prompt with its answer, and how often it goes through the model for all labels."""

    tokens: int
    num_contexts: int = 1


@dataclass(frozen=True)
class AutoTokens:
    """The number of tokens that was chosen for the setting `key`, and why."""

    number: int
    reason: str
    key: str = "max_tokens"

    def __str__(self) -> str:
        return f"{self.key}: auto -> {self.number:,} tokens: {self.reason}"

    def save(self, fold_dir: Path) -> None:
        write_json({"max_tokens": self.number, "reason": self.reason}, fold_dir / FILE)


def settle_max_tokens(
    spec: ModelSpec, encoder: Any, head: Head, examples: Sequence[Example], fold_dir: Path | None
) -> AutoTokens:
    """The number saved in a fold that was begun before, else a new one; the same in every process."""

    def make() -> AutoTokens:  # in the first process only: others might read what it has just written
        if fold_dir is not None and not spec.settings.overwrite and (fold_dir / FILE).exists():
            return read_max_tokens(fold_dir)
        max_new_tokens = spec.settings.generation.max_new_tokens
        return choose_max_tokens(spec, measure_longest(encoder, head, examples, max_new_tokens))

    return from_first(make)


def measure_longest(encoder: Any, head: Head, examples: Sequence[Example], max_new_tokens: int = 0) -> Longest:
    """The longest of `examples` when nothing is cut, written answers of `max_new_tokens` included."""
    encoded = encoder.encode(examples)
    longest = max(len(prompt.token_ids) for prompt in encoded.prompts)
    if isinstance(encoded, EncodedTexts):
        lengths = (len(prompt.token_ids) - prompt.num_targets for prompt in encoded.prompts)
        longest = max(longest, max(lengths) + max_new_tokens)
    elif any(prompt.branches for prompt in encoded.prompts):  # a row is computed with all its candidates at once
        longest = max(len(prompt.token_ids) + max(map(len, prompt.branches)) for prompt in encoded.prompts)
        most = max(head.num_read(prompt, encoded.labels, packs=True) for prompt in encoded.prompts)
        return Longest(longest, max(1, -(-most // longest)))
    return Longest(longest + encoded.labels.longest, len(head.contexts(encoded.labels)))


def choose_max_tokens(spec: ModelSpec, longest: Longest | None = None) -> AutoTokens:
    """The largest max_tokens up to `upper_limit` for which one prompt fits. Raises UserError if no length fits."""
    limit, num_contexts = upper_limit(spec, longest), longest.num_contexts if longest else 1
    chosen, plan = fill_memory(limit, ladder(limit.number), lambda tokens: one_prompt(spec, tokens, num_contexts))
    if is_known(plan) and not has_room(plan):
        raise UserError(
            f"max_tokens=auto: a prompt of {chosen.number} tokens needs about {in_units(plan.needed)} and a tenth to"
            f" spare, {in_units(plan.free)} are free on {plan.device}; python -m nexttoken plan"
            f" max_tokens={chosen.number} batch_tokens={chosen.number} shows what would fit"
        )
    return chosen


def upper_limit(spec: ModelSpec, longest: Longest | None) -> AutoTokens:
    """max_tokens for unlimited memory: the model's context, or the longest prompt, rounded up, if that is shorter.

    The examples do not limit it if they are unknown (`longest` is None) or the inference lengthens prompts.
    """
    limit = AutoTokens(DEFAULT_CONTEXT, "the most without a context")
    if spec.settings.model.name_or_path is not None and spec.context:
        limit = AutoTokens(spec.context, "the model's context")
    if longest is None or lengthens_prompts(spec.settings.inference):
        return limit
    rounded = -(-longest.tokens // ROUNDING) * ROUNDING
    return limit if rounded >= limit.number else AutoTokens(rounded, f"the longest prompt needs {longest.tokens:,}")


def lengthens_prompts(inference: Any) -> bool:
    """True for an inference, or one inside it, whose prompts are longer than those of training."""
    if not isinstance(inference, dict):
        return False
    return any(key in LENGTHENING_KEYS or lengthens_prompts(value) for key, value in inference.items())


def ladder(limit: int) -> list[int]:
    """Sizes below `limit`, eight for each doubling: 256, 288, 320 ... 512, 576 ..."""
    octaves = range(limit.bit_length())
    sizes = [FEWEST_TOKENS * 2**octave * eighths // 8 for octave in octaves for eighths in range(8, 16)]
    return [size for size in sizes if size < limit] or [limit]


def one_prompt(spec: ModelSpec, tokens: int, num_contexts: int) -> ModelSpec:
    """The same run with batches of one prompt."""
    return spec.change(max_tokens=tokens, batch_tokens=tokens * num_contexts)


def with_batch_tokens(spec: ModelSpec) -> ModelSpec:
    """The same run with a number in place of batch_tokens=auto, which is printed; the same in every process."""
    if spec.settings.batch_tokens != AUTO:
        return spec
    chosen = from_first(lambda: choose_batch_tokens(spec))
    print(chosen)
    return spec.change(batch_tokens=chosen.number)


def choose_batch_tokens(spec: ModelSpec) -> AutoTokens:
    """The largest power of two for which a batch full of the longest prompts fits in memory; at least one prompt."""
    kind, max_tokens = spec.device.type, spec.settings.max_tokens
    enough = SUFFICIENT_TOKENS.get(kind, SUFFICIENT_TOKENS_GPU)
    if spec.settings.quantization and kind in SUFFICIENT_TOKENS:
        enough *= DEQUANTISING_FACTOR
    limit = AutoTokens(enough, f"a {kind.upper()} is no faster with more", "batch_tokens")
    powers = [2**power for power in range(enough.bit_length()) if max_tokens < 2**power < enough]
    chosen, plan = fill_memory(limit, [max_tokens, *powers], lambda tokens: spec.change(batch_tokens=tokens))
    if not is_known(plan):
        return replace(chosen, number=min(enough, UNPLANNED_TOKENS), reason=UNKNOWN_MEMORY)
    return replace(limit, reason=f"{limit.reason}, {_use(plan)}") if chosen == limit else chosen


def fill_memory(
    limit: AutoTokens, smaller: Sequence[int], change: Callable[[int], ModelSpec]
) -> tuple[AutoTokens, MemoryPlan]:
    """`limit` if its plan has room or is unknown, else the largest of the ascending numbers `smaller` that has room.

    The first of them if none has. Also returns the plan of the chosen number.
    """
    with no_side_effects():
        plan = plan_parts(change(limit.number))
        if not is_known(plan):
            return replace(limit, reason=f"{limit.reason}; {UNKNOWN_MEMORY}"), plan
        if has_room(plan):
            return limit, plan
        place = bisect_left(smaller, True, key=lambda number: not has_room(plan_parts(change(number))))
        number = smaller[max(place - 1, 0)]
        plan = plan_parts(change(number))
        return replace(limit, number=number, reason=_use(plan)), plan


def is_known(plan: MemoryPlan) -> bool:
    return plan.free is not None and plan.is_complete


def has_room(plan: MemoryPlan) -> bool:
    return plan.free is None or plan.needed <= plan.free * (1 - SPARE_SHARE)


def read_max_tokens(fold_dir: Path) -> AutoTokens:
    """The number saved by `AutoTokens.save`. Raises UserError if the file is missing or broken."""
    saved = read_json(fold_dir / FILE)
    tokens, reason = saved.get("max_tokens"), saved.get("reason")
    if not isinstance(tokens, int) or not tokens > 0 or not isinstance(reason, str):
        raise UserError(f"{fold_dir / FILE} has no token budget; train this fold again with overwrite=true")
    return AutoTokens(tokens, reason)


def with_max_tokens(settings: Settings, fold_dir: Path) -> Settings:
    """The settings of a finished fold, with its saved number in place of max_tokens=auto."""
    if settings.max_tokens != AUTO:
        return settings
    return settings.model_copy(update={"max_tokens": read_max_tokens(fold_dir).number})


def _use(plan: MemoryPlan) -> str:
    return f"{in_units(plan.needed)} of {in_units(plan.free)} free on {plan.device}"
