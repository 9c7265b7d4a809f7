"""The weights of one fold after another: adapters are exchanged on one base model; whole models are loaded anew."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from nexttoken.data.file_kinds import refuse_stand_ins
from nexttoken.errors import UserError
from nexttoken.models import adapters
from nexttoken.models import base_model as base
from nexttoken.models.load import ModelSpec, load_model, load_tokenizer, resolve
from nexttoken.models.precision import AUTOCAST, compute_in
from nexttoken.models.processes import choose_device
from nexttoken.models.quantized import move_model
from nexttoken.models.saved import keeps_base
from nexttoken.settings import ModelSettings, Settings, TrainerSettings

WHOLE = ("config.json", "tokenizer.json")


def fold_weights(settings: Settings) -> "OnBase | WholeModels":
    """The source of the weights of a run's folds."""
    return OnBase(settings) if keeps_base(settings) else WholeModels(settings)


def without_training(settings: Settings) -> Settings:
    """The settings of a model whose weights stay as they are."""
    return settings.model_copy(update={"trainer": _without_training(settings.trainer)})


class OnBase:
    """Folds that saved an adapter or nothing: the base is loaded once, each adapter overwrites the one before.

    It is loaded anew for a fold that was scored in another dtype.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._model: Any = None
        self._dtype: torch.dtype | None = None  # of the model in memory
        self._specs: dict[str, ModelSpec] = {}  # by the base's dtype
        self._adapter = adapters.trained_adapter(settings)
        self._adapter_in_memory: Path | None = None

    def folder_of(self, fold_dir: Path) -> Path:
        """The folder of the fold's weights; folds whose weights are equal have the same one."""
        return fold_dir / "adapter" if self._adapter else Path(str(self.settings.model.name_or_path))

    def load(self, fold_dir: Path, num_classes: int | None) -> tuple[Any, Any]:
        """The fold's model, on its device and in evaluation mode, and its tokenizer.

        Equal tokenizers are the same object. Do not use the model returned before: it may be the same object with the
        new weights.
        """
        folder = fold_dir / "adapter"
        _refuse_missing(folder, (base.FILE, *adapters.FILES) if self._adapter else (base.FILE,))
        base.refuse_other_base(folder, self.settings, self._base)
        spec = self.spec(fold_dir)
        if self._dtype != spec.dtype:
            self._model = self._dtype = None  # its memory is needed for the next
            used, sizes = spec.settings, (num_classes, spec.config)
            model: Any = load_model(used.model, self._tokenizer, used.max_tokens, spec.dtype, used.quantization, *sizes)
            if self._adapter is not None:  # its initial values are overwritten, and need no computation
                model = adapters.add_adapter(model, self._adapter.model_copy(update={"init": "default"}), num_classes)
            compute_in(model, AUTOCAST[spec.precision])
            self._model, self._dtype = move_model(model, spec.device).eval(), spec.dtype
            self._adapter_in_memory = None
        if self._adapter is not None and folder != self._adapter_in_memory:
            self._adapter_in_memory = None
            adapters.overwrite_adapter(self._model, self._adapter, folder)
            self._adapter_in_memory = folder
        return self._model, self._tokenizer

    def spec(self, fold_dir: Path) -> ModelSpec:
        """The fold's model for prediction, before its weights are loaded; on a CPU in the dtype it was scored in."""
        recorded = base.read_base(fold_dir / "adapter").dtype or "float32"  # earlier runs did not record it
        given = self.settings.model.dtype
        dtype = recorded if given == "auto" and choose_device().type == "cpu" else given
        if dtype not in self._specs:
            model = self.settings.model.model_copy(update={"dtype": dtype})
            changed = {"trainer": _without_training(self.settings.trainer), "model": model}
            self._specs[dtype] = resolve(self.settings.model_copy(update=changed))
        return self._specs[dtype]

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self.settings.model, ())

    @cached_property
    def _base(self) -> base.Base:
        return base.identify(self.settings.model, self._tokenizer)


class WholeModels:
    """Folds that each saved all weights: one model is released before the next is loaded."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._folder: Path | None = None
        self._model: Any = None
        self._tokenizers: dict[str, Any] = {}

    def folder_of(self, fold_dir: Path) -> Path:
        return fold_dir / "model"

    def spec(self, fold_dir: Path) -> ModelSpec:
        model = self._saved(fold_dir).model_copy(update={"dtype": "float32"})
        trained = resolve(self.settings.model_copy(update={"model": model}))
        trainer = self.settings.trainer.model_copy(update={"precision": trained.precision})
        return trained.change(trainer=_without_training(trainer))

    def _saved(self, fold_dir: Path) -> ModelSettings:
        return self.settings.model.model_copy(update={"name_or_path": str(self.folder_of(fold_dir)), "revision": None})

    def load(self, fold_dir: Path, num_classes: int | None) -> tuple[Any, Any]:
        folder, saved = self.folder_of(fold_dir), self._saved(fold_dir)
        _refuse_missing(folder, WHOLE if base.weight_files(folder) else (*WHOLE, "model.safetensors"))
        if (key := _hash_all_but_weights(folder)) not in self._tokenizers:
            self._tokenizers[key] = load_tokenizer(saved, ())
        tokenizer = self._tokenizers[key]
        if folder != self._folder:
            self._folder = self._model = None  # its memory is needed for the next
            model = load_model(saved, tokenizer, self.settings.max_tokens, num_classes=num_classes)
            compute_in(model, AUTOCAST[self.spec(fold_dir).precision])
            self._folder, self._model = folder, move_model(model, choose_device()).eval()
        return self._model, tokenizer


def _without_training(trainer: TrainerSettings) -> TrainerSettings:
    return trainer.model_copy(update={"max_epochs": 0})


def _refuse_missing(folder: Path, names: tuple[str, ...]) -> None:
    if missing := [name for name in names if not (folder / name).exists()]:
        raise UserError(f"{folder} has no {', '.join(missing)}; train this fold again with overwrite=true")
    refuse_stand_ins(folder)


def _hash_all_but_weights(folder: Path) -> str:
    """SHA-256 of everything that determines a tokenizer: its files and the model's configuration."""
    sha = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and ".safetensors" not in path.name:
            sha.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return sha.hexdigest()
