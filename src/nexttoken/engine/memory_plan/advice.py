"""Settings that would fit: changes are tried in the order of what they cost, and only those needed are advised."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nexttoken.engine.memory_plan.table import MemoryPlan
from nexttoken.settings import AdapterSettings, QuantizationSettings, Settings

FEWEST_TOKENS = 256  # prompts are not cut below this
LORA = AdapterSettings(  # conf/adapter/lora.yaml
    r=16, alpha=32, dropout=0.05, target_modules="all-linear", rslora=False, dora=False, init="default"
)
NF4 = QuantizationSettings(bits=4)  # conf/quantization/nf4.yaml


@dataclass(frozen=True)
class Advice:
    """Overrides that fit, None where none do, and the bytes needed with them (or with all of them)."""

    changes: tuple[str, ...] | None
    needed: int


Change = Callable[[Settings], Settings | None]  # None: nothing left to change in this way


def checkpoint_activations(settings: Settings) -> Settings | None:
    if not settings.trainer.max_epochs or settings.fit.gradient_checkpointing:
        return None
    return _with_fit(settings, gradient_checkpointing=True)


def halve_batch(settings: Settings) -> Settings | None:
    """Batches of half the tokens, down to one row."""
    fewer = max(settings.batch_tokens // 2, settings.max_tokens)
    return settings.model_copy(update={"batch_tokens": fewer}) if fewer < settings.batch_tokens else None


def shrink_optimizer(settings: Settings) -> Settings | None:
    if not settings.trainer.max_epochs or settings.fit.optimizer.endswith("8bit"):
        return None
    return _with_fit(settings, optimizer="adamw_8bit")


def add_lora(settings: Settings) -> Settings | None:
    if not settings.trainer.max_epochs or settings.adapter or settings.model.name_or_path is None:
        return None
    model = settings.model.model_copy(update={"dtype": "auto"})
    return settings.model_copy(update={"adapter": LORA, "model": model})


def quantise(settings: Settings) -> Settings | None:
    """4-bit weights: frozen ones of a pretrained model only."""
    frozen = settings.adapter or not settings.trainer.max_epochs
    is_4bit = settings.quantization is not None and settings.quantization.bits == 4
    if is_4bit or not frozen or settings.model.name_or_path is None:
        return None
    return settings.model_copy(update={"quantization": NF4})


def halve_prompts(settings: Settings) -> Settings | None:
    fewer = settings.max_tokens // 2
    if fewer < FEWEST_TOKENS:
        return None
    return settings.model_copy(update={"max_tokens": fewer, "batch_tokens": min(settings.batch_tokens, fewer)})


CHANGES: tuple[Change, ...] = (
    checkpoint_activations,
    halve_batch,
    shrink_optimizer,
    add_lora,
    quantise,
    halve_prompts,
)


def advise(settings: Settings, plan: Callable[[Settings], MemoryPlan]) -> Advice:
    """Change one thing after the other until the plan fits, then take back what turns out not to be needed."""
    changed = settings
    for change in CHANGES:
        while (further := change(changed)) is not None:
            changed = further
            if plan(changed).fits:
                changed = _take_back(settings, changed, plan)
                return Advice(_overrides(settings, changed), plan(changed).needed)
    return Advice(None, plan(changed).needed)


def _take_back(settings: Settings, changed: Settings, plan: Callable[[Settings], MemoryPlan]) -> Settings:
    """Undo the dearest change first, as long as the plan still fits."""
    for undo in UNDO:
        trial = undo(settings, changed)
        if trial != changed and plan(trial).fits:
            changed = trial
    return changed


def _without_lora(old: Settings, new: Settings) -> Settings:
    frozen = new.quantization is not None  # what is quantised cannot be trained
    return new if frozen else new.model_copy(update={"adapter": old.adapter, "model": old.model})


UNDO: tuple[Callable[[Settings, Settings], Settings], ...] = (
    lambda old, new: new.model_copy(update={"quantization": old.quantization}),
    _without_lora,
    lambda old, new: _with_fit(new, optimizer=old.fit.optimizer),
    lambda old, new: new.model_copy(update={"batch_tokens": old.batch_tokens}),
    lambda old, new: _with_fit(new, gradient_checkpointing=old.fit.gradient_checkpointing),
)


def _overrides(before: Settings, after: Settings) -> tuple[str, ...]:
    """The changes as they are written on the command line."""
    values: list[tuple[str, Any, Any]] = [
        ("fit.gradient_checkpointing=true", before.fit.gradient_checkpointing, after.fit.gradient_checkpointing),
        (f"batch_tokens={after.batch_tokens}", before.batch_tokens, after.batch_tokens),
        (f"fit.optimizer={after.fit.optimizer}", before.fit.optimizer, after.fit.optimizer),
        ("adapter=lora", before.adapter, after.adapter),
        ("model.dtype=auto", before.model.dtype, after.model.dtype),
        ("quantization=nf4", before.quantization, after.quantization),
        (f"max_tokens={after.max_tokens}", before.max_tokens, after.max_tokens),
    ]
    return tuple(text for text, old, new in values if old != new)


def _with_fit(settings: Settings, **values: Any) -> Settings:
    return settings.model_copy(update={"fit": settings.fit.model_copy(update=values)})
