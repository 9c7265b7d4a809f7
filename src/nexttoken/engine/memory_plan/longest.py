"""max_tokens=auto: the longest prompt that one question may have on this device, by the memory plan."""

from bisect import bisect_left
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from nexttoken.engine.memory_plan.advice import FEWEST_TOKENS
from nexttoken.engine.memory_plan.make import as_stored, aside, plan_activations, plan_parts
from nexttoken.engine.memory_plan.table import MemoryPlan, in_units
from nexttoken.errors import UserError
from nexttoken.settings import Settings

STEP = 64  # a budget for the rows is a multiple of it, so that a row that is a little longer when asked stays whole
SPARE = 0.1  # of the free memory: what the plan does not know of, such as fragmentation
NO_CONTEXT = 2048  # the most for a model that names no context, such as one that is built from nothing
GROWS = ("search", "num_demonstrations")  # keys of a way of asking that adds passages or solved questions to a prompt


@dataclass(frozen=True)
class Need:
    """What the rows that are known before training ask for: tokens of the longest prompt with its answer, and how
    often such a prompt goes through the model to read every label."""

    tokens: int
    num_contexts: int = 1


@dataclass(frozen=True)
class Budget:
    """The number that was chosen for max_tokens=auto, and why."""

    max_tokens: int
    reason: str

    def __str__(self) -> str:
        return f"max_tokens: auto -> {self.max_tokens:,} tokens: {self.reason}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def choose_budget(settings: Settings, config: Any, device: torch.device, need: Need | None = None) -> Budget:
    """The largest budget for which one prompt alone goes through the model (and back, where it is trained).

    Never more than the model's context, nor (rounded up) than `need`, unless more is added to prompts when they are
    asked; without `need` the rows are unknown.
    Raises UserError where not even a short prompt fits.
    """
    settings, most = as_stored(settings, config), upper_limit(settings, config, need)
    num_contexts = need.num_contexts if need else 1
    known: dict[str, int] = {}
    with aside():
        plan = plan_parts(one_prompt(settings, most.max_tokens, num_contexts), config, device, known)
        if plan.free is None or not plan.is_complete:
            return replace(most, reason=f"{most.reason}; what memory it takes, or how much is free, is unknown")
        if has_room(plan):
            return most

        def of(tokens: int) -> MemoryPlan:
            changed = one_prompt(settings, tokens, num_contexts)
            return replace(plan, parts=(*plan.parts[:-1], plan_activations(changed, config, device, known)))

        rungs = ladder(most.max_tokens)
        if not has_room(shortest := of(rungs[0])):
            raise UserError(_refusal(shortest, rungs[0]))
        tokens = rungs[bisect_left(rungs, True, lo=1, key=lambda rung: not has_room(of(rung))) - 1]
        return Budget(tokens, f"{in_units(of(tokens).needed)} of {in_units(plan.free)} free on {device}")


def upper_limit(settings: Settings, config: Any, need: Need | None) -> Budget:
    """What the model and the rows would take if memory had no end."""
    is_new = settings.model.name_or_path is None
    context = None if is_new else getattr(config.get_text_config(), "max_position_embeddings", None)
    limit = Budget(context, "the model's context") if context else Budget(NO_CONTEXT, "the most without a context")
    if need is None or grows(settings.inference):
        return limit
    rounded = -(-need.tokens // STEP) * STEP
    return limit if rounded >= limit.max_tokens else Budget(rounded, f"the longest prompt needs {need.tokens:,}")


def ladder(most: int) -> list[int]:
    """Budgets below `most`, each about a tenth longer than the one before: 256, 288, 320 ... 512, 576 ..."""
    octaves = range(most.bit_length())
    rungs = [FEWEST_TOKENS * 2**octave * eighths // 8 for octave in octaves for eighths in range(8, 16)]
    return [rung for rung in rungs if rung < most] or [most]


def has_room(plan: MemoryPlan) -> bool:
    return plan.free is None or plan.needed <= plan.free * (1 - SPARE)


def grows(inference: Any) -> bool:
    """True for a way of asking, or one inside it, whose prompts are longer than those that are learnt from."""
    if not isinstance(inference, dict):
        return False
    return any(key in GROWS or grows(value) for key, value in inference.items())


def one_prompt(settings: Settings, tokens: int, num_contexts: int) -> Settings:
    """The same run with batches of one question."""
    return settings.model_copy(update={"max_tokens": tokens, "batch_tokens": tokens * num_contexts})


def _refusal(plan: MemoryPlan, tokens: int) -> str:
    return (
        f"max_tokens=auto: a prompt of {tokens} tokens needs about {in_units(plan.needed)} and a tenth to spare,"
        f" {in_units(plan.free)} are free on {plan.device}; python -m nexttoken plan max_tokens={tokens}"
        f" batch_tokens={tokens} shows what would fit"
    )
