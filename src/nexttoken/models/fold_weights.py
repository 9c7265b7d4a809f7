"""The weights of one fold after another: adapters change places on a base that stays; whole weights are loaded anew."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from nexttoken.models import adapters
from nexttoken.models import base_model as base
from nexttoken.models.load import choose_dtype, load_config, load_model, load_tokenizer
from nexttoken.models.saved import WHOLE, place, refuse_missing, refuse_other_base
from nexttoken.settings import Settings


class Weights(Protocol):
    """Where the folds of a run have their weights from."""

    def folder_of(self, fold_dir: Path) -> Path:
        """The folder whose weights the fold has: another one for folds whose weights differ."""

    def load(self, fold_dir: Path, max_tokens: int, num_classes: int | None) -> tuple[Any, Any]:
        """The fold's model, on its device and in evaluation mode, and its tokenizer.

        Tokenizers that are equal are the same object. The model that was returned before is not to be asked any more:
        it may be the same object, with the new weights.
        """


class OnBase:
    """Folds that left an adapter, or nothing, beside a base that is loaded once and stays.

    Folds of a run have adapters of one shape, so that each overwrites the one before, in place and to the last bit;
    memory holds one, and nothing is left of the others. The base is never changed: what LoftQ takes from it is in the
    adapter.
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
        settings = self.settings
        architecture = load_config(settings.model).get_text_config().model_type
        dtype = choose_dtype(settings.model, architecture, training=False)
        model = load_model(settings.model, self._tokenizer, max_tokens, dtype, settings.quantization, num_classes)
        if self._has_adapter and settings.adapter is not None:
            model = adapters.add_empty(model, settings.adapter, num_classes)
        return place(model).eval()

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
    """Folds that each left all weights: one model is let go before the next is loaded."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._folder: Path | None = None
        self._model: Any = None
        self._tokenizers: dict[str, Any] = {}

    def folder_of(self, fold_dir: Path) -> Path:
        return fold_dir / "model"

    def load(self, fold_dir: Path, max_tokens: int, num_classes: int | None) -> tuple[Any, Any]:
        folder = self.folder_of(fold_dir)
        refuse_missing(folder, WHOLE if base.weight_files(folder) else (*WHOLE, "model.safetensors"))
        saved = self.settings.model.model_copy(update={"name_or_path": str(folder), "revision": None})
        if (words := _hash_but_weights(folder)) not in self._tokenizers:
            self._tokenizers[words] = load_tokenizer(saved, ())
        tokenizer = self._tokenizers[words]
        if folder != self._folder:
            self._folder = self._model = None  # its memory is needed for the next
            self._model = place(load_model(saved, tokenizer, max_tokens, num_classes=num_classes)).eval()
            self._folder = folder
        return self._model, tokenizer


def _hash_but_weights(folder: Path) -> str:
    """SHA-256 over what decides a tokenizer: its own files and the model's configuration."""
    sha = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and ".safetensors" not in path.name:
            sha.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return sha.hexdigest()
