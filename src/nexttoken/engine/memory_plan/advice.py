"""Advice on settings that would fit: changes are tried, the least costly first, and only those needed are advised."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from nexttoken.engine.memory_plan.table import MemoryPlan
from nexttoken.settings import AdapterSettings, FitSettings, QuantizationSettings, Settings

FEWEST_TOKENS = 256  # prompts are not cut below this
LORA = AdapterSettings(  # conf/adapter/lora.yaml
    r=16, alpha=20, dropout=0.05, target_modules="all-linear", rslora=False, dora=False, init="default"
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


def advise(plan: MemoryPlan, settings: Settings, plan_settings: PlanSettings, is_packed: bool = False) -> MemoryPlan:
    """The plan with overrides that fit, None where none do, and the bytes needed with them (or with all of them).

    One change after the other is added until the plan fits; those that turn out not to be needed are taken back.
    `is_packed`: the weights were saved in few bits already.
    """
    changed = settings
    while (further := cheapest_change(changed, is_packed)) is not None:
        changed = further
        if plan_settings(changed).fits:
            changed = _take_back(settings, changed, plan_settings)
            return replace(plan, advice=_overrides(settings, changed), least=plan_settings(changed).needed)
    return replace(plan, advice=None, least=plan_settings(changed).needed)


def cheapest_change(settings: Settings, is_packed: bool = False) -> Settings | None:
    """The settings with the next change of least cost; None without another one."""
    training, is_pretrained = settings.trainer.max_epochs > 0, settings.model.name_or_path is not None
    if training and not settings.fit.gradient_checkpointing:
        return _with(settings, gradient_checkpointing=True)
    fewer = max(settings.batch_tokens // 2, settings.max_tokens)  # a batch has at least one prompt
    if fewer < settings.batch_tokens:
        return _with(settings, batch_tokens=fewer)
    if training and not settings.fit.optimizer.endswith("8bit"):
        return _with(settings, optimizer="adamw_8bit")
    if training and not settings.adapter and is_pretrained:
        return _with(settings, adapter=LORA, model=settings.model.model_copy(update={"dtype": "auto"}))
    is_4bit = is_packed or (settings.quantization is not None and settings.quantization.bits == 4)
    is_4bit = is_4bit or settings.model.stream_layers  # quantised weights are not streamed
    if (settings.adapter or not training) and is_pretrained and not is_4bit:  # frozen weights only
        return _with(settings, quantization=NF4)
    shorter = settings.max_tokens // 2
    if shorter < FEWEST_TOKENS:
        return None
    return _with(settings, max_tokens=shorter, batch_tokens=min(settings.batch_tokens, shorter))


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
