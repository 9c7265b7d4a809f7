"""LoRA adapters by peft: added to a frozen base, saved without it, and loaded only where they fit."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from nexttoken.data.files import read_json
from nexttoken.errors import UserError, first_five
from nexttoken.models.fast_lora import speed_up_lora
from nexttoken.models.quantized import keep_trainable
from nexttoken.settings import AdapterSettings, Settings

FILES = ("adapter_config.json", "adapter_model.safetensors")
VISION = r".*vision.*"  # texts never reach a vision tower: its adapter would get no gradients
RETRAIN = "train this fold again with overwrite=true"


def trained_adapter(settings: Settings) -> AdapterSettings | None:
    """Settings of the adapter that folds save; None where there is none, or no training."""
    return settings.adapter if settings.trainer.max_epochs else None


def add_adapter(model: nn.Module, settings: AdapterSettings, num_classes: int | None = None) -> Any:
    """Freeze `model` and return it with trainable LoRA matrices, and its classification layer trainable as a whole.

    Raises UserError for target modules that the model does not have.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM if num_classes is None else TaskType.SEQ_CLS,
        r=settings.r,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        target_modules=settings.target_modules,
        exclude_modules=VISION if any("vision" in name for name, _ in model.named_modules()) else None,
        use_rslora=settings.rslora,
        use_dora=settings.dora,
        init_lora_weights=settings.init in ("default", "loftq") or settings.init,  # type: ignore[arg-type]  # LoftQ is computed later
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft reads an attribute of transformers by its old name
            model = get_peft_model(model, config).train()  # type: ignore[arg-type,assignment]
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"adapter.target_modules={settings.target_modules} is refused: {reason}") from None
    speed_up_lora(model)
    keep_trainable(model)
    for parameter in model.parameters():
        if parameter.requires_grad:  # peft leaves a classification layer in 16 bit, where small updates are lost
            parameter.data = parameter.data.float()
    return model


def add_empty_adapter(model: nn.Module, settings: AdapterSettings, num_classes: int | None = None) -> Any:
    """Add an adapter whose weights will be overwritten, so that computing its initial values is not needed."""
    return add_adapter(model, settings.model_copy(update={"init": "default"}), num_classes)


def save_adapter(model: Any, folder: Path, weights: dict[str, Tensor] | None = None) -> None:
    """Write the adapter in peft's format, which vLLM reads too."""
    model.save_pretrained(folder, save_embedding_layers=False, state_dict=weights)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card


def load_adapter(model: nn.Module, settings: AdapterSettings, folder: Path, num_classes: int | None = None) -> Any:
    """Add a saved adapter to its base. Raises UserError as `overwrite_adapter` does."""
    model = add_empty_adapter(model, settings, num_classes)
    overwrite_adapter(model, settings, folder)
    return model


def overwrite_adapter(model: Any, settings: AdapterSettings, folder: Path) -> None:
    """Replace all weights of the model's adapter by saved ones; change nothing where they do not fit.

    Raises UserError for an adapter with other settings, names or shapes.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    config = read_json(folder / FILES[0])
    wanted = {"r": settings.r, "lora_alpha": settings.alpha, "use_rslora": settings.rslora, "use_dora": settings.dora}
    if differ := [key for key, value in wanted.items() if config.get(key) != value]:
        differences = ", ".join(f"{key} is {config.get(key)}, not {wanted[key]}" for key in differ)
        raise UserError(f"{folder} is not the adapter of config.yaml ({differences}); restore the file, or {RETRAIN}")
    try:
        saved = load_file(folder / FILES[1])
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder / FILES[1]} cannot be loaded ({error}); {RETRAIN}") from None
    if misfits := find_misfits(get_peft_model_state_dict(model, save_embedding_layers=False), saved):
        raise UserError(
            f"{folder}: {len(misfits)} of its weights do not fit ({first_five(misfits)}); it is incomplete or of"
            f" another model; {RETRAIN}"
        )
    set_peft_model_state_dict(model, saved)


def find_misfits(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Sorted names that only one of the states has, or whose shapes differ."""
    left, right = ({(name, tensor.shape) for name, tensor in state.items()} for state in (expected, given))
    return sorted({name for name, _ in left ^ right})
