"""The weights of one fold after another: adapters are exchanged on one base model; whole weights are loaded anew."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from nexttoken.models import adapters
from nexttoken.models import base_model as base
from nexttoken.models.load import ModelSpec, load_model, load_tokenizer, resolve
from nexttoken.models.saved import WHOLE, keeps_base, place, refuse_missing, refuse_other_base
from nexttoken.settings import ModelSettings, Settings


class Weights(Protocol):
    """Source of the weights of a run's folds."""

    def folder_of(self, fold_dir: Path) -> Path:
        """The folder of the fold's weights; folds whose weights are equal have the same one."""

    def spec(self, fold_dir: Path) -> ModelSpec:
        """The fold's model for prediction, before its weights are loaded."""

    def load(self, fold_dir: Path, max_tokens: int, num_classes: int | None) -> tuple[Any, Any]:
        """The fold's model, on its device and in evaluation mode, and its tokenizer.

        Equal tokenizers are the same object. Do not use the model returned before: it may be the same object with the
        new weights.
        """


def fold_weights(settings: Settings) -> Weights:
    return OnBase(settings) if keeps_base(settings) else WholeWeights(settings)


def predicting(settings: Settings) -> Settings:
    """The settings of a run that trains nothing."""
    return settings.model_copy(update={"trainer": settings.trainer.model_copy(update={"max_epochs": 0})})


class OnBase:
    """Folds that saved an adapter, or nothing: the base model is loaded once and never changed.

    All adapters of a run have one shape, so each overwrites the one before in place, exactly; memory holds one.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._model: Any = None
        self._adapter: Path | None = None

    def folder_of(self, fold_dir: Path) -> Path:
        return fold_dir / "adapter" if self._has_adapter else Path(str(self.settings.model.name_or_path))

    def load(self, fold_dir: Path, max_tokens: int, num_classes: int | None) -> tuple[Any, Any]:
        folder = fold_dir / "adapter"
        refuse_missing(folder, (base.FILE, *adapters.FILES) if self._has_adapter else (base.FILE,))
        refuse_other_base(folder, self.settings, self._base)
        if self._model is None:
            self._model = self._load_base(max_tokens, num_classes)
        if self._has_adapter and folder != self._adapter:
            assert self.settings.adapter is not None
            self._adapter = None
            adapters.put_adapter(self._model, self.settings.adapter, folder)
            self._adapter = folder
        return self._model, self._tokenizer

    def _load_base(self, max_tokens: int, num_classes: int | None) -> Any:
        spec, settings = self._spec, self._spec.settings
        model = load_model(
            settings.model, self._tokenizer, max_tokens, spec.dtype, settings.quantization, num_classes, spec.config
        )
        if self._has_adapter and settings.adapter is not None:
            model = adapters.add_empty(model, settings.adapter, num_classes)
        return model.to(spec.device).eval()

    def spec(self, fold_dir: Path) -> ModelSpec:
        return self._spec

    @cached_property
    def _spec(self) -> ModelSpec:
        return resolve(predicting(self.settings))

    @property
    def _has_adapter(self) -> bool:
        return self.settings.adapter is not None and self.settings.trainer.max_epochs > 0

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self.settings.model, ())

    @cached_property
    def _base(self) -> base.Base:
        return base.identify(self.settings.model, self._tokenizer)


class WholeWeights:
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
        return resolve(predicting(self.settings).model_copy(update={"model": model}))

    def _saved(self, fold_dir: Path) -> ModelSettings:
        return self.settings.model.model_copy(update={"name_or_path": str(self.folder_of(fold_dir)), "revision": None})

    def load(self, fold_dir: Path, max_tokens: int, num_classes: int | None) -> tuple[Any, Any]:
        folder, saved = self.folder_of(fold_dir), self._saved(fold_dir)
        refuse_missing(folder, WHOLE if base.weight_files(folder) else (*WHOLE, "model.safetensors"))
        if (words := _hash_but_weights(folder)) not in self._tokenizers:
            self._tokenizers[words] = load_tokenizer(saved, ())
        tokenizer = self._tokenizers[words]
        if folder != self._folder:
            self._folder = self._model = None  # its memory is needed for the next
            self._model = place(load_model(saved, tokenizer, max_tokens, num_classes=num_classes)).eval()
            self._folder = folder
        return self._model, tokenizer


def _hash_but_weights(folder: Path) -> str:
    """SHA-256 of all that determines a tokenizer: its own files and the model's configuration."""
    sha = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and ".safetensors" not in path.name:
            sha.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return sha.hexdigest()
