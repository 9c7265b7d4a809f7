"""LoRA adapters by peft: added to a frozen base, saved without it, and loaded only where they fit."""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from nexttoken.data.files import RETRAIN, read_json, write_json
from nexttoken.errors import UserError, first_five, nearest, one_line
from nexttoken.models.base_model import weight_files
from nexttoken.models.fast_lora import speed_up_lora
from nexttoken.models.quantized import import_bitsandbytes, keep_trainable
from nexttoken.models.streamed import layer_stream
from nexttoken.progress import Progress
from nexttoken.settings import AdapterSettings, Settings

FILES = ("adapter_config.json", "adapter_model.safetensors")
VISION = r".*vision.*"  # texts never reach a vision tower: its adapter would get no gradients
OVERSAMPLING = 8  # of the randomised SVD; with these power iterations its error is below that of quantisation
ITERATIONS = 4


def trained_adapter(settings: Settings) -> AdapterSettings | None:
    """Settings of the adapter that folds save; None where there is none, or no training."""
    return settings.adapter if settings.trainer.max_epochs else None


def add_adapter(model: nn.Module, settings: AdapterSettings, num_classes: int | None = None) -> Any:
    """Freeze `model` and return it with trainable LoRA matrices, and its classification layer trainable as a whole.

    Raises UserError for target modules that the model does not have, and for embeddings.
    """
    import_bitsandbytes()
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
    if settings.target_modules != "all-linear":
        _refuse_targets(model, settings.target_modules, config.exclude_modules)  # type: ignore[arg-type]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft reads an attribute of transformers by its old name
            warnings.filterwarnings("ignore", "Model has `tie_word_embeddings")  # merging unties an adapted head
            model = get_peft_model(model, config).train()  # type: ignore[arg-type,assignment]
    except ValueError as error:
        raise UserError(f"adapter.target_modules={settings.target_modules} is refused: {one_line(error)}") from None
    speed_up_lora(model)
    keep_trainable(model)
    if stream := layer_stream(model):
        stream.materialise(model)
    for parameter in model.parameters():
        if parameter.requires_grad:  # peft leaves a classification layer in 16 bit, where small updates are lost
            parameter.data = parameter.data.float()
    return model


def _refuse_targets(model: nn.Module, targets: str | list[str], excluded: str | None) -> None:
    """Raise UserError for names of a list that match no layer, which peft would pass over, and for embeddings."""
    from peft.tuners.tuners_utils import check_target_module_exists

    layers = {name: layer for name, layer in model.named_modules() if name}
    linear = {name.rpartition(".")[2] for name, layer in layers.items() if isinstance(layer, nn.Linear)}
    is_pattern = isinstance(targets, str)
    for target in [targets] if is_pattern else targets:
        one = SimpleNamespace(target_modules=target if is_pattern else {target}, exclude_modules=excluded)
        try:
            matched = [layer for name, layer in layers.items() if check_target_module_exists(one, name)]
        except re.error as error:
            raise UserError(f"adapter.target_modules={target!r} is no pattern: {error}; give a list of names") from None
        if not matched:
            fix = "a pattern matches whole names; give a list of names: [q_proj,v_proj]"
            if not is_pattern or "linear" in str(target).lower():
                fix = nearest(str(target), {*linear, "all-linear"})
            raise UserError(f"adapter.target_modules: {target!r} is no layer of this model; {fix}")
        if any(isinstance(layer, nn.Embedding) for layer in matched):
            raise UserError(
                f"adapter.target_modules: {target!r} is the tokens' embedding; only linear layers are adapted"
            )


def save_adapter(model: Any, folder: Path, weights: dict[str, Tensor] | None = None) -> None:
    """Write the adapter in peft's format, which vLLM reads too."""
    model.save_pretrained(folder, save_embedding_layers=False, state_dict=weights)
    config = read_json(folder / FILES[0])
    for key in config.keys() & {"target_modules", "exclude_modules", "modules_to_save"}:
        if isinstance(config[key], list):  # of a set, whose order differs between two processes
            config[key].sort()
    write_json(config, folder / FILES[0])
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card


def load_adapter(model: nn.Module, settings: AdapterSettings, folder: Path, num_classes: int | None = None) -> Any:
    """Add a saved adapter to its base. Raises UserError as `overwrite_adapter` does."""
    model = add_adapter(model, settings.model_copy(update={"init": "default"}), num_classes)  # cheap, and overwritten
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
    saved = read_weights(folder)
    misfits = find_misfits(get_peft_model_state_dict(model, save_embedding_layers=False), saved)
    strange = (name for name, one in saved.items() if not (one.is_floating_point() and one.isfinite().all()))
    if misfits := misfits or sorted(strange):
        raise UserError(
            f"{folder}: {len(misfits)} of its weights do not fit ({first_five(misfits)}); it is incomplete or of"
            f" another model; {RETRAIN}"
        )
    set_peft_model_state_dict(model, saved)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """A saved adapter's weights by name. Raises UserError where they cannot be read."""
    try:
        return load_file(folder / FILES[1])
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder / FILES[1]} cannot be loaded ({error}); {RETRAIN}") from None


def find_misfits(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Sorted names that only one of the states has, or whose shapes differ."""
    left, right = ({(name, tensor.shape) for name, tensor in state.items()} for state in (expected, given))
    return sorted({name for name, _ in left ^ right})


def start_from_quantization_error(model: Any, source: Path) -> None:
    """Set each layer's A (r, in) and B (out, r) so that scaling * B A is the best rank-r part of W - dequantised(W).

    This is LoftQ (Li et al. 2023); peft's function needs a GPU, and ignores the adapter's scaling. `source` holds the
    whole weights as safetensors. Raises UserError when one of them is missing.
    """
    from bitsandbytes.functional import dequantize_4bit
    from peft.tuners.lora import Linear4bit
    from safetensors import safe_open

    layers = {name: module for name, module in model.get_base_model().named_modules() if isinstance(module, Linear4bit)}
    files = [safe_open(path, "pt") for path in weight_files(source)]
    file_of = {name: file for file in files for name in file.keys()}  # noqa: SIM118  (not a dict)
    with Progress(len(layers), "loftq") as progress, torch.no_grad():
        for layer_name, layer in layers.items():
            name = f"{layer_name}.weight"
            if name not in file_of or f"{name}.absmax" in file_of:
                raise UserError(
                    f"adapter.init=loftq needs the whole weights, and {source} holds no {name} as safetensors in 16 or"
                    " 32 bit; use another adapter.init"
                )
            stored = layer.get_base_layer().weight
            quantised = dequantize_4bit(stored.data, stored.quant_state).float()
            error = file_of[name].get_tensor(name).to(quantised.device).float() - quantised
            for adapter, rank in layer.r.items():
                b, a = low_rank(error / layer.scaling[adapter], rank)
                layer.lora_B[adapter].weight.copy_(b)
                layer.lora_A[adapter].weight.copy_(a)
            progress.advance(1)


def low_rank(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """B (out, r) and A (r, in), whose product is nearest to `matrix` (Halko et al. 2011, randomised SVD)."""
    left, values, right = torch.svd_lowrank(matrix, min(rank + OVERSAMPLING, *matrix.shape), ITERATIONS)
    root = values[:rank].sqrt()
    b, a = left[:, :rank] * root, root[:, None] * right[:, :rank].T
    missing = rank - len(root)  # where the matrix is smaller than the rank
    return torch.nn.functional.pad(b, (0, missing)), torch.nn.functional.pad(a, (0, 0, 0, missing))
