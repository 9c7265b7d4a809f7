"""batch_tokens=auto: as many tokens at once as the device holds, and no more than it is faster with."""

from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import Any

import torch

from nexttoken.engine.memory_plan.longest import has_room
from nexttoken.engine.memory_plan.make import as_stored, aside, plan_activations, plan_parts
from nexttoken.engine.memory_plan.table import MemoryPlan, in_units
from nexttoken.models.collective import from_first
from nexttoken.models.load import choose_device
from nexttoken.settings import AUTO, Settings

# Tokens beyond which batches are no faster: a CPU's caches are full early, a GPU's units are all at work by then.
ENOUGH = {"cpu": 1024}
ENOUGH_ELSEWHERE = 65_536
UNPACKED = 2  # times as many where each batch unpacks quantised weights


@dataclass(frozen=True)
class BatchTokens:
    """The number that was chosen for batch_tokens=auto, and why."""

    number: int
    reason: str

    def __str__(self) -> str:
        return f"batch_tokens: auto -> {self.number:,}: {self.reason}"


def with_batch_tokens(settings: Settings, config: Any) -> Settings:
    """The settings with a number where they say auto, printed; the same in every process."""
    if settings.batch_tokens != AUTO:
        return settings
    chosen = from_first(lambda: choose_batch_tokens(settings, config, choose_device()))
    print(chosen)
    return settings.model_copy(update={"batch_tokens": chosen.number})


def choose_batch_tokens(settings: Settings, config: Any, device: torch.device) -> BatchTokens:
    """The largest power of two for which a batch full of the longest prompts goes through the model (and back).

    Never fewer than one of those prompts: a row is not cut for it.
    """
    settings = as_stored(settings, config)
    enough = ENOUGH.get(device.type, ENOUGH_ELSEWHERE)
    if settings.quantization and device.type in ENOUGH:
        enough *= UNPACKED
    known: dict[str, int] = {}
    with aside():
        plan = plan_parts(_with(settings, enough), config, device, known)
        if plan.free is None or not plan.is_complete:
            return BatchTokens(min(enough, 4096), "what memory it takes, or how much is free, is unknown")
        if has_room(plan):
            return BatchTokens(enough, f"a {device.type.upper()} is no faster with more, {_used(plan)}")
        rungs = [2**power for power in range(enough.bit_length()) if settings.max_tokens < 2**power < enough]
        rungs = [settings.max_tokens, *rungs]

        def of(tokens: int) -> MemoryPlan:
            return replace(
                plan, parts=(*plan.parts[:-1], plan_activations(_with(settings, tokens), config, device, known))
            )

        tokens = rungs[max(bisect_left(rungs, True, key=lambda rung: not has_room(of(rung))) - 1, 0)]
        return BatchTokens(tokens, _used(of(tokens)))


def _with(settings: Settings, batch_tokens: int) -> Settings:
    return settings.model_copy(update={"batch_tokens": batch_tokens})


def _used(plan: MemoryPlan) -> str:
    assert plan.free is not None
    return f"{in_units(plan.needed)} of {in_units(plan.free)} free on {plan.device}"
