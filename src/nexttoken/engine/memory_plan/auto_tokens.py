"""max_tokens=auto and batch_tokens=auto: the longest prompt and the largest batch that this device has memory for.

max_tokens is chosen once, saved with the fold, and read where the fold predicts; batch_tokens is chosen anew by each
command.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nexttoken.data.files import read_json, write_json
from nexttoken.engine.heads import Head
from nexttoken.engine.memory_plan.advice import FEWEST_TOKENS
from nexttoken.engine.memory_plan.make import no_side_effects, plan_parts
from nexttoken.engine.memory_plan.table import MemoryPlan, in_units
from nexttoken.errors import UserError
from nexttoken.models.collective import from_first
from nexttoken.models.load import ModelSpec
from nexttoken.prompts.encoded import EncodedTexts
from nexttoken.settings import AUTO, Settings
from nexttoken.types import Example

FILE = "budget.json"
SPARE_SHARE = 0.1  # of the free memory: for what the plan does not count, such as fragmentation
ROUNDING = 64  # max_tokens chosen by the examples is a multiple, so that a slightly longer one is not cut later
DEFAULT_CONTEXT = 2048  # the most for a model without a context of its own, such as one built from nothing
LENGTHENING_KEYS = ("search", "num_demonstrations")  # of an inference that adds passages or solved examples to a prompt

# Tokens beyond which batches are no faster: a CPU's caches are full early, a GPU is fully occupied by then.
SUFFICIENT_TOKENS = {"cpu": 1024}
SUFFICIENT_TOKENS_GPU = 65_536
DEQUANTISING_FACTOR = 2  # on CPUs, where each batch dequantises the weights
UNPLANNED_TOKENS = 4096  # the most where the memory is unknown


@dataclass(frozen=True)
class Longest:
    """Length of the longest uncut prompt with its answer, and how often it goes through the model for all labels."""

    tokens: int
    num_contexts: int = 1


@dataclass(frozen=True)
class Budget:
    """The number that was chosen for max_tokens=auto, and why."""

    max_tokens: int
    reason: str

    def __str__(self) -> str:
        return f"max_tokens: auto -> {self.max_tokens:,} tokens: {self.reason}"

    def save(self, fold_dir: Path) -> None:
        write_json(asdict(self), fold_dir / FILE)


@dataclass(frozen=True)
class BatchTokens:
    """The number that was chosen for batch_tokens=auto, and why."""

    number: int
    reason: str

    def __str__(self) -> str:
        return f"batch_tokens: auto -> {self.number:,}: {self.reason}"


def settle_budget(
    spec: ModelSpec, encoder: Any, head: Head, examples: Sequence[Example], fold_dir: Path | None
) -> Budget:
    """The saved budget of a fold that was begun before, else a new one, the same in every process.

    Only the first process looks for the file: another might read what the first has just written.
    """

    def make() -> Budget:
        if fold_dir is not None and not spec.settings.overwrite and (fold_dir / FILE).exists():
            return read_budget(fold_dir)
        return choose_budget(spec, measure_longest(encoder, head, examples, spec.settings.generation.max_new_tokens))

    return from_first(make)


def measure_longest(encoder: Any, head: Head, examples: Sequence[Example], max_new_tokens: int = 0) -> Longest:
    """The longest of `examples` when nothing is cut, written answers of `max_new_tokens` included."""
    encoded = encoder.encode(examples)
    longest = max(len(prompt.token_ids) for prompt in encoded.prompts)
    if isinstance(encoded, EncodedTexts):
        lengths = (len(prompt.token_ids) - prompt.num_targets for prompt in encoded.prompts)
        longest = max(longest, max(lengths) + max_new_tokens)
    return Longest(longest + encoded.labels.longest, len(head.contexts(encoded.labels)))


def choose_budget(spec: ModelSpec, longest: Longest | None = None) -> Budget:
    """The largest max_tokens for which one prompt alone goes through the model (and back, where it is trained).

    Never more than the model's context, nor (rounded up) than `longest`, unless the inference lengthens prompts.
    Without `longest` the examples are unknown.
    Raises UserError where not even a short prompt fits.
    """
    limit, num_contexts = upper_limit(spec, longest), longest.num_contexts if longest else 1

    def plan_for(tokens: int) -> MemoryPlan:
        return plan_parts(one_prompt(spec, tokens, num_contexts))

    with no_side_effects():
        plan = plan_for(limit.max_tokens)
        if plan.free is None or not plan.is_complete:
            return replace(limit, reason=f"{limit.reason}; what memory it takes, or how much is free, is unknown")
        if has_room(plan):
            return limit
        sizes = ladder(limit.max_tokens)
        if not has_room(shortest := plan_for(sizes[0])):
            raise UserError(
                f"max_tokens=auto: a prompt of {sizes[0]} tokens needs about {in_units(shortest.needed)} and a tenth to"
                f" spare, {in_units(shortest.free)} are free on {shortest.device}; python -m nexttoken plan"
                f" max_tokens={sizes[0]} batch_tokens={sizes[0]} shows what would fit"
            )
        tokens = largest_with_room(sizes, plan_for)
        return Budget(tokens, _use(plan_for(tokens)))


def upper_limit(spec: ModelSpec, longest: Longest | None) -> Budget:
    """The most that the model and the examples can use, if memory were unlimited."""
    context = spec.context if spec.settings.model.name_or_path is not None else None
    limit = Budget(context, "the model's context") if context else Budget(DEFAULT_CONTEXT, "the most without a context")
    if longest is None or lengthens_prompts(spec.settings.inference):
        return limit
    rounded = -(-longest.tokens // ROUNDING) * ROUNDING
    return limit if rounded >= limit.max_tokens else Budget(rounded, f"the longest prompt needs {longest.tokens:,}")


def lengthens_prompts(inference: Any) -> bool:
    """True for an inference, or one inside it, whose prompts are longer than those of training."""
    if not isinstance(inference, dict):
        return False
    return any(key in LENGTHENING_KEYS or lengthens_prompts(value) for key, value in inference.items())


def ladder(limit: int) -> list[int]:
    """Sizes below `limit`, each about a tenth longer than the one before: 256, 288, 320 ... 512, 576 ..."""
    octaves = range(limit.bit_length())
    sizes = [FEWEST_TOKENS * 2**octave * eighths // 8 for octave in octaves for eighths in range(8, 16)]
    return [size for size in sizes if size < limit] or [limit]


def one_prompt(spec: ModelSpec, tokens: int, num_contexts: int) -> ModelSpec:
    """The same run with batches of one prompt."""
    return spec.change(max_tokens=tokens, batch_tokens=tokens * num_contexts)


def with_batch_tokens(spec: ModelSpec) -> ModelSpec:
    """The same run with a number, printed, in place of batch_tokens=auto; the same number in every process."""
    if spec.settings.batch_tokens != AUTO:
        return spec
    chosen = from_first(lambda: choose_batch_tokens(spec))
    print(chosen)
    return spec.change(batch_tokens=chosen.number)


def choose_batch_tokens(spec: ModelSpec) -> BatchTokens:
    """The largest power of two for which a batch full of the longest prompts goes through the model (and back).

    Never less than one of those prompts.
    """
    kind, max_tokens = spec.device.type, spec.settings.max_tokens
    enough = SUFFICIENT_TOKENS.get(kind, SUFFICIENT_TOKENS_GPU)
    if spec.settings.quantization and kind in SUFFICIENT_TOKENS:
        enough *= DEQUANTISING_FACTOR

    def plan_for(tokens: int) -> MemoryPlan:
        return plan_parts(spec.change(batch_tokens=tokens))

    with no_side_effects():
        plan = plan_for(enough)
        if plan.free is None or not plan.is_complete:
            number = min(enough, UNPLANNED_TOKENS)
            return BatchTokens(number, "what memory it takes, or how much is free, is unknown")
        if has_room(plan):
            return BatchTokens(enough, f"a {kind.upper()} is no faster with more, {_use(plan)}")
        powers = [2**power for power in range(enough.bit_length()) if max_tokens < 2**power < enough]
        tokens = largest_with_room([max_tokens, *powers], plan_for)
        return BatchTokens(tokens, _use(plan_for(tokens)))


def has_room(plan: MemoryPlan) -> bool:
    return plan.free is None or plan.needed <= plan.free * (1 - SPARE_SHARE)


def largest_with_room(sizes: Sequence[int], plan_for: Callable[[int], MemoryPlan]) -> int:
    """The largest of the ascending `sizes` whose plan has room, the first where none has."""
    return sizes[max(bisect_left(sizes, True, key=lambda size: not has_room(plan_for(size))) - 1, 0)]


def read_budget(fold_dir: Path) -> Budget:
    """The budget that `Budget.save` wrote. Raises UserError for any other file, and where there is none."""
    saved = read_json(fold_dir / FILE)
    tokens, reason = saved.get("max_tokens"), saved.get("reason")
    if not isinstance(tokens, int) or not tokens > 0 or not isinstance(reason, str):
        raise UserError(f"{fold_dir / FILE} holds no token budget; train this fold again with overwrite=true")
    return Budget(tokens, reason)


def with_budget(settings: Settings, fold_dir: Path) -> Settings:
    """The settings of a finished fold, with the number that was chosen in place of max_tokens=auto."""
    if settings.max_tokens != AUTO:
        return settings
    return settings.model_copy(update={"max_tokens": read_budget(fold_dir).max_tokens})


def _use(plan: MemoryPlan) -> str:
    return f"{in_units(plan.needed)} of {in_units(plan.free)} free on {plan.device}"
