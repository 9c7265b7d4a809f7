"""Settings that would fit: changes are tried in the order of what they cost, and only those needed are advised."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from nexttoken.engine.memory_plan.table import MemoryPlan
from nexttoken.settings import AdapterSettings, FitSettings, QuantizationSettings, Settings

FEWEST_TOKENS = 256  # prompts are not cut below this
LORA = AdapterSettings(  # conf/adapter/lora.yaml
    r=16, alpha=32, dropout=0.05, target_modules="all-linear", rslora=False, dora=False, init="default"
)
NF4 = QuantizationSettings(bits=4)  # conf/quantization/nf4.yaml
UNDO_ORDER = (  # settings that are taken back together, the most costly change first
    ("quantization",),
    ("adapter", "model"),
    ("optimizer",),
    ("batch_tokens",),
    ("gradient_checkpointing",),
)

PlanSettings = Callable[[Settings], MemoryPlan]


def advise(plan: MemoryPlan, settings: Settings, plan_settings: PlanSettings) -> MemoryPlan:
    """The plan with overrides that fit, None where none do, and the bytes needed with them (or with all of them).

    One change after the other is added until the plan fits; those that turn out not to be needed are taken back.
    """
    changed = settings
    for change in CHANGES:
        while (further := change(changed)) is not None:
            changed = further
            if plan_settings(changed).fits:
                changed = _take_back(settings, changed, plan_settings)
                return replace(plan, advice=_overrides(settings, changed), least=plan_settings(changed).needed)
    return replace(plan, advice=None, least=plan_settings(changed).needed)


def checkpoint_activations(settings: Settings) -> Settings | None:
    if not settings.trainer.max_epochs or settings.fit.gradient_checkpointing:
        return None
    return _with(settings, gradient_checkpointing=True)


def halve_batch(settings: Settings) -> Settings | None:
    """Batches of half the tokens, down to one prompt."""
    fewer = max(settings.batch_tokens // 2, settings.max_tokens)
    return _with(settings, batch_tokens=fewer) if fewer < settings.batch_tokens else None


def shrink_optimizer(settings: Settings) -> Settings | None:
    if not settings.trainer.max_epochs or settings.fit.optimizer.endswith("8bit"):
        return None
    return _with(settings, optimizer="adamw_8bit")


def add_lora(settings: Settings) -> Settings | None:
    if not settings.trainer.max_epochs or settings.adapter or settings.model.name_or_path is None:
        return None
    return _with(settings, adapter=LORA, model=settings.model.model_copy(update={"dtype": "auto"}))


def quantize(settings: Settings) -> Settings | None:
    """4-bit weights: frozen ones of a pretrained model only."""
    is_frozen = settings.adapter or not settings.trainer.max_epochs
    is_4bit = settings.quantization is not None and settings.quantization.bits == 4
    return _with(settings, quantization=NF4) if is_frozen and not is_4bit and settings.model.name_or_path else None


def halve_prompts(settings: Settings) -> Settings | None:
    fewer = settings.max_tokens // 2
    if fewer < FEWEST_TOKENS:
        return None
    return _with(settings, max_tokens=fewer, batch_tokens=min(settings.batch_tokens, fewer))


# The least costly first; each is repeated until it returns None.
CHANGES = (checkpoint_activations, halve_batch, shrink_optimizer, add_lora, quantize, halve_prompts)


def _take_back(old: Settings, changed: Settings, plan_settings: PlanSettings) -> Settings:
    """Undo one change after the other, as long as the plan still fits."""
    for names in UNDO_ORDER:
        if "adapter" in names and changed.quantization is not None:
            continue  # quantized weights cannot be trained
        trial = _with(changed, **{name: _value(old, name) for name in names})
        if trial != changed and plan_settings(trial).fits:
            changed = trial
    return changed


def _overrides(before: Settings, after: Settings) -> tuple[str, ...]:
    """The changes as they are written on the command line."""
    texts = {
        "gradient_checkpointing": "fit.gradient_checkpointing=true",
        "batch_tokens": f"batch_tokens={after.batch_tokens}",
        "optimizer": f"fit.optimizer={after.fit.optimizer}",
        "adapter": "adapter=lora",
        "model": "model.dtype=auto",
        "quantization": "quantization=nf4",
        "max_tokens": f"max_tokens={after.max_tokens}",
    }
    return tuple(text for name, text in texts.items() if _value(before, name) != _value(after, name))


def _value(settings: Settings, name: str) -> Any:
    return getattr(settings.fit if name in FitSettings.model_fields else settings, name)


def _with(settings: Settings, **values: Any) -> Settings:
    """A copy with other values of the settings, or of those under `fit`."""
    fit = {name: values.pop(name) for name in [*values] if name in FitSettings.model_fields}
    return settings.model_copy(update=values | {"fit": settings.fit.model_copy(update=fit)})
