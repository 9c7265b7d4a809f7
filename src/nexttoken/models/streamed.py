"""Models whose decoder layers stay in their files: a layer is loaded before it runs and freed after it.

All other weights (embeddings, last norm, output head, adapters) are in memory. The next layer is read by a thread
while one computes, so two layers are in memory at a time.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from nexttoken.errors import UserError, first_five
from nexttoken.models.base_model import weight_files
from nexttoken.models.hub import locate
from nexttoken.models.packed_formats import is_packed, packing_of
from nexttoken.settings import ModelSettings

# Layers that take hidden states alone from the layer before, and whose weights have the same names in files.
ARCHITECTURES = {
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3_text",
    "phi3",
    "olmo2",
    "granite",
    "smollm3",
}


@dataclass(frozen=True)
class SavedTensor:
    """A weight's place in the model, and in a safetensors file."""

    module: nn.Module
    name: str
    path: Path
    key: str

    def put(self, tensor: Tensor) -> None:
        if self.name in self.module._parameters:
            self.module._parameters[self.name] = nn.Parameter(tensor, requires_grad=False)
        else:
            self.module._buffers[self.name] = tensor

    @property
    def placeholder(self) -> Tensor:
        tensor: Tensor = getattr(self.module, self.name)
        return tensor


class LayerStream:
    """The layers of a model and their weights in files; `bytes_read` counts what was read of them."""

    def __init__(self, layers: nn.ModuleList, tensors: list[list[SavedTensor]], device: torch.device) -> None:
        self.tensors, self.device, self.bytes_read = tensors, device, 0
        self.placeholders = [[one.placeholder for one in layer] for layer in tensors]
        self._reader, self._next = ThreadPoolExecutor(1, "layers"), dict[int, Future[list[Tensor]]]()
        self.schedule: Any = None  # of a pass over many batches (engine/streamed_layers.py)
        for number, layer in enumerate(layers):
            layer.forward = partial(self._forward, number, layer.forward)  # type: ignore[method-assign]

    def __len__(self) -> int:
        return len(self.tensors)

    def load(self, number: int, following: int | None) -> None:
        """Put a layer's weights in place, and begin to read those of the layer that follows, if any."""
        ready = self._next.pop(number, None) or self._reader.submit(self._read, number)
        for saved, tensor in zip(self.tensors[number], ready.result(), strict=True):
            saved.put(tensor)
        self._next = {} if following is None else {following: self._reader.submit(self._read, following)}

    def free(self, number: int) -> None:
        for saved, placeholder in zip(self.tensors[number], self.placeholders[number], strict=True):
            saved.put(placeholder)

    def stop_reading(self) -> None:
        """Free what was read ahead."""
        self._next = {}

    def materialise(self, model: nn.Module) -> None:
        """Give memory to weights beside the layers' own, such as those of an adapter, with zeros in it."""
        for module in model.modules():
            for name, one in module._parameters.items():
                if one is not None and one.is_meta and one.requires_grad:
                    zeros = torch.zeros(one.shape, dtype=one.dtype, device=self.device)
                    module._parameters[name] = nn.Parameter(zeros)

    def _read(self, number: int) -> list[Tensor]:
        layer = self.tensors[number]
        dtypes = [placeholder.dtype for placeholder in self.placeholders[number]]
        tensors = read_tensors(layer, dtypes, self.device)
        self.bytes_read += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return tensors

    def _forward(self, number: int, compute: Any, states: Tensor, *args: Any, **named: Any) -> Any:
        """The layer's forward: as the pass over many batches has it, or at once with the weights of this layer."""
        if self.schedule is not None:
            return self.schedule.run_layer(number, compute, states, args, named)
        self.load(number, (number + 1) % len(self))
        try:
            return compute(states, *args, **named)
        finally:
            self.free(number)


def layer_stream(model: Any) -> LayerStream | None:
    """The stream of a model whose layers stay in files; None for any other model."""
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    return getattr(plain, "layer_stream", None)


def weights_on_disk(settings: ModelSettings) -> Path:
    """The local folder of a model's weights, which are fetched from the hub where they are not here."""
    source = locate(str(settings.name_or_path))
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    patterns = ["*.safetensors", "*.safetensors.index.json"]
    return Path(snapshot_download(source, revision=settings.revision, allow_patterns=patterns))


def load_streamed(
    kind: Any, folder: Path, config: Any, dtype: torch.dtype | str, device: torch.device, **options: Any
) -> Any:
    """The model in this folder with its layers on the meta device and a `layer_stream`.

    Raises UserError for architectures that were not tried, weights that bitsandbytes quantised, and files whose
    weights have other names.
    """
    from accelerate import init_empty_weights

    refuse_unstreamed(config)
    files, saved = weight_files(folder), getattr(config, "quantization_config", None)
    if not files:
        raise UserError(f"{folder} has no safetensors, from which layers are streamed; use model.stream_layers=false")
    if dtype == "auto":
        dtype = getattr(torch, str(config.dtype or torch.float32).removeprefix("torch."))
    if saved is not None:
        del config.quantization_config
    with init_empty_weights(include_buffers=False):
        model = kind.from_config(config, dtype=dtype, **options)
    if saved is not None:
        from nexttoken.models.packed_loading import replace_linear

        replace_linear(model, packing_of(saved), list(map(str, files)))
        model.config.quantization_config = saved
    _attach(model, files, device)
    return model.requires_grad_(False)


def refuse_unstreamed(config: Any) -> None:
    """Raise UserError for a model whose layers cannot be streamed."""
    if getattr(config, "quantization_config", None) and not is_packed(config):
        raise UserError("weights that bitsandbytes quantised are not streamed; use model.stream_layers=false")
    if config.model_type not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise UserError(f"model.stream_layers=true is tried with {known}, not with {config.model_type}; leave it out")


def _attach(model: Any, files: list[Path], device: torch.device) -> None:
    """Load all weights but the layers' to the device, and give the model its stream of layers."""
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    layers = max(stacks, key=len)
    inside = {id(module): number for number, layer in enumerate(layers) for module in layer.modules()}
    places = {key: path for path in files for key in _keys(path)}
    tensors: list[list[SavedTensor]] = [[] for _ in layers]
    others: list[SavedTensor] = []
    for module_name, module in model.named_modules():
        for name, is_saved in _own_tensors(module):
            key = f"{module_name}.{name}".lstrip(".")
            if key in places:
                own = tensors[inside[id(module)]] if id(module) in inside else others
                own.append(SavedTensor(module, name, places[key], key))
            elif not is_saved:
                module._buffers[name] = module._buffers[name].to(device)
    dtypes = [one.placeholder.dtype for one in others]
    for one, tensor in zip(others, read_tensors(others, dtypes, device), strict=True):
        one.put(tensor)
    model.tie_weights()
    found = {id(one.placeholder) for layer in tensors for one in layer}
    state = [*model.named_parameters(), *model.named_buffers()]
    if missing := [name for name, one in state if one.is_meta and id(one) not in found]:
        raise UserError(
            f"{len(missing)} weights are missing, or have other names in the files ({first_five(missing)}); give a"
            " complete checkpoint, or use model.stream_layers=false"
        )
    model.layer_stream = LayerStream(layers, tensors, device)


def _own_tensors(module: nn.Module) -> Iterator[tuple[str, bool]]:
    """Names of a module's own parameters and buffers, and True for those that files hold."""
    yield from ((name, True) for name, one in module._parameters.items() if one is not None)
    unsaved = module._non_persistent_buffers_set
    yield from ((name, name not in unsaved) for name, one in module._buffers.items() if one is not None)


def _keys(path: Path) -> list[str]:
    with safe_open(path, "pt") as file:
        return list(file.keys())


def read_tensors(saved: list[SavedTensor], dtypes: list[torch.dtype], device: torch.device) -> list[Tensor]:
    """Copies of tensors in files, on the device and in their dtypes."""
    with ExitStack() as opened:
        files = {path: opened.enter_context(safe_open(path, "pt")) for path in {one.path for one in saved}}
        given = [files[one.path].get_tensor(one.key) for one in saved]  # pages of the file, not read yet
        return [tensor.to(device, dtype, copy=True) for tensor, dtype in zip(given, dtypes, strict=True)]
