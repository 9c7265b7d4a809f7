"""LoRA by peft: put on a frozen base, saved without it, and put back only where it belongs."""

import warnings
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from nexttoken.data.files import read_json
from nexttoken.errors import UserError, first_five
from nexttoken.models.fast_lora import quicken
from nexttoken.models.quantized import keep_trainable
from nexttoken.settings import AdapterSettings

FILES = ("adapter_config.json", "adapter_model.safetensors")
INIT: dict[str, Any] = {
    "default": True,
    "gaussian": "gaussian",
    "orthogonal": "orthogonal",
    "loftq": True,
}  # loftq comes afterwards

VISION = r".*vision.*"  # a tower that texts never reach: its adapter would be dead weight, without gradients


def add_adapter(model: nn.Module, settings: AdapterSettings, num_classes: int | None = None) -> Any:
    """Freeze `model` and return it with new LoRA matrices (and a classification layer in full), which are trained.

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
        init_lora_weights=INIT[settings.init],
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers for an attribute by its old name
            model = get_peft_model(model, config).train()  # type: ignore[arg-type,assignment]
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"adapter.target_modules={settings.target_modules} is refused: {reason}") from None
    quicken(model)
    keep_trainable(model)
    for parameter in model.parameters():
        if parameter.requires_grad:  # peft leaves a classification layer in 16 bit, where small updates are lost
            parameter.data = parameter.data.float()
    return model


def save_adapter(model: Any, folder: Path, weights: dict[str, Tensor] | None = None) -> None:
    """Write the adapter in peft's own format, which peft and vLLM load, too."""
    model.save_pretrained(folder, save_embedding_layers=False, state_dict=weights)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card


def load_adapter(model: nn.Module, settings: AdapterSettings, folder: Path, num_classes: int | None = None) -> Any:
    """Put a saved adapter back on its base. Raises UserError as `put_adapter` does."""
    model = add_empty(model, settings, num_classes)
    put_adapter(model, settings, folder)
    return model


def add_empty(model: nn.Module, settings: AdapterSettings, num_classes: int | None = None) -> Any:
    """`model` with an adapter of the shape in `settings`, whose weights are to be put in place: their start is none."""
    return add_adapter(model, settings.model_copy(update={"init": "default"}), num_classes)


def put_adapter(model: Any, settings: AdapterSettings, folder: Path) -> None:
    """Overwrite all weights of the model's adapter with saved ones; nothing is changed where they do not fit.

    Raises UserError for an adapter of other settings or another shape, and for keys missing or foreign.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    _refuse_other_settings(settings, folder)
    try:
        saved = load_file(folder / FILES[1])
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{folder / FILES[1]} cannot be loaded ({error}); train this fold again with overwrite=true"
        ) from None
    own = get_peft_model_state_dict(model, save_embedding_layers=False)
    differ = sorted(key for key in {*own, *saved} if key not in own or key not in saved)
    differ += [key for key in own if key in saved and own[key].shape != saved[key].shape]
    if differ:
        raise UserError(
            f"{folder}: {len(differ)} of its weights do not fit ({first_five(differ)}); it belongs to another model or"
            " was cut short; train this fold again with overwrite=true"
        )
    set_peft_model_state_dict(model, saved)


def _refuse_other_settings(settings: AdapterSettings, folder: Path) -> None:
    saved = read_json(folder / FILES[0])
    expected = {
        "r": settings.r,
        "lora_alpha": settings.alpha,
        "use_rslora": settings.rslora,
        "use_dora": settings.dora,
    }
    if wrong := [
        f"{key} is {saved.get(key)}, not {value}" for key, value in expected.items() if saved.get(key) != value
    ]:
        raise UserError(
            f"{folder} is not the adapter that config.yaml describes ({', '.join(wrong)}); put the file back, or train"
            " this fold again with overwrite=true"
        )
