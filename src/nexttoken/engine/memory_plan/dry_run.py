"""The memory of one step, counted by running the model's own code on tensors that have a shape and no content."""

import copy
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nexttoken.engine.forward.last_layer import unwrapped
from nexttoken.engine.forward.layout import Layout
from nexttoken.engine.forward.output_head import reading, token_losses
from nexttoken.errors import UserError
from nexttoken.models.adapters import add_adapter
from nexttoken.settings import Settings


@dataclass(frozen=True)
class Skeleton:
    """The recipe of a model without weights: its settings, its architecture and the dtype of its computation."""

    settings: Settings
    config: Any
    dtype: torch.dtype

    @property
    def num_layers(self) -> int:
        return self.config.get_text_config().num_hidden_layers

    @property
    def num_classes(self) -> int | None:
        """Outputs of a classification layer; None for a language model's head."""
        return len(self.settings.prompt.get("labels") or "AB") if self._has_head("Classification") else None

    @property
    def writes(self) -> bool:
        """True for open answers, where every token may need logits."""
        return self._has_head("AnswerText")

    def _has_head(self, name: str) -> bool:
        return str(self.settings.head.get("_target_")).endswith(f".{name}")

    def build(self, num_layers: int | None = None, adapted: bool = True) -> Any:
        """The model on the meta device. Raises UserError if it lacks the head or the attention of the settings."""
        import transformers

        config = cut_layers(self.config, num_layers or self.num_layers)
        kind: Any = transformers.AutoModelForCausalLM
        if self.num_classes is not None:
            kind, config.num_labels = transformers.AutoModelForSequenceClassification, self.num_classes
        attention = self.settings.model.attn_implementation
        # Every fused implementation of attention saves the same tensors; sdpa is always installed.
        attention_used = attention if attention in (None, "eager") else "sdpa"
        options: dict[str, Any] = {"attn_implementation": attention_used, "dtype": self.dtype}
        options |= {"trust_remote_code": True} if self.settings.model.trust_remote_code else {}
        with torch.device("meta"):
            try:
                model = kind.from_config(config, **options)
            except ValueError as error:
                head = "classification" if self.num_classes else "label"
                raise UserError(
                    f"{config.model_type} with head={head}, model.attn_implementation={attention} is refused:"
                    f" {' '.join(str(error).split())[:160]}"
                ) from None
            adapter = self.settings.adapter if adapted else None
            return model if adapter is None else add_adapter(model, adapter, self.num_classes)


def cut_layers(config: Any, num_layers: int) -> Any:
    """A copy of a transformers config with fewer layers; lists with one entry per layer are cut, too."""
    config = copy.deepcopy(config)
    text = config.get_text_config()
    whole = text.num_hidden_layers
    for name, value in list(vars(text).items()):
        if isinstance(value, (list, tuple)) and len(value) == whole > num_layers:
            setattr(text, name, value[:num_layers])
    text.num_hidden_layers = min(whole, num_layers)
    return config


@dataclass(frozen=True)
class Step:
    """The shape of one batch and its computation; `training` adds a backward pass."""

    rows: int
    tokens: int
    training: bool
    mixed: bool  # float32 weights or adapters, products in 16 bit
    on_gpu: bool


@dataclass(frozen=True)
class Counted:
    """Bytes held between the forward and the backward pass, and the most at any moment."""

    held: int
    peak: int


def step_bytes(skeleton: Skeleton, step: Step) -> int:
    """Peak bytes of a step beyond weights, gradients and optimizer states.

    One and two layers are run; each further layer holds as much as the second. Exact for equal layers, but too high by
    at most the embeddings' gradient when all weights are trained and embeddings are larger than two layers.
    """
    if skeleton.num_layers <= 2:
        return count_step(skeleton, skeleton.num_layers, step).peak
    one, two = (count_step(skeleton, depth, step) for depth in (1, 2))
    return two.peak + (two.held - one.held) * (skeleton.num_layers - 2)


def count_step(skeleton: Skeleton, num_layers: int, step: Step) -> Counted:
    """Run a step on the model cut to `num_layers`."""
    model, fit = skeleton.build(num_layers, adapted=step.training), skeleton.settings.fit
    if step.training and fit.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    model.train(step.training)
    if step.on_gpu:
        fuse_dropout(model)
    whole_text = skeleton.writes or (step.training and fit.text_epochs > 0)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.set_grad_enabled(step.training):
        model.to_empty(device="cpu")
        token_ids = torch.zeros((step.rows, step.tokens), dtype=torch.long)
        half = torch.float16 if skeleton.dtype == torch.float16 else torch.bfloat16  # else weights would be cast
        with torch.autocast("cpu", half, enabled=step.mixed, cache_enabled=False):
            return count_pass(model, token_ids, whole_text)


def count_pass(model: Any, token_ids: Tensor, whole_text: bool = False) -> Counted:
    """Count a forward pass (and a backward pass, while gradients are enabled) over `token_ids` (R, T).

    The gradients themselves are allocated before and not counted, as after the first batch of a step.
    """
    training = torch.is_grad_enabled()
    for parameter in model.parameters():
        if training and parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    with PeakBytes() as counted:
        loss = _loss(model, token_ids, whole_text)
        held = counted.now if training else 0
        if training:
            loss.backward()
    return Counted(held, counted.peak)


def _loss(model: Any, token_ids: Tensor, whole_text: bool) -> Tensor:
    """A scalar from the logits of every token with `whole_text`, else of the rows' last tokens."""
    plain = unwrapped(model)
    last = torch.arange(1, len(token_ids) + 1) * token_ids.shape[1] - 1
    if plain.get_output_embeddings() is None:  # a classification layer
        hidden = plain.base_model(input_ids=token_ids, use_cache=False).last_hidden_state
        *_, trained = plain.score.parameters()
        logits = plain.score(hidden[:, -1].to(trained.dtype))
    elif whole_text:
        (rows, tokens), number = token_ids.shape, token_ids.numel()
        layout = Layout(token_ids, tuple(range(0, number, tokens)), (tokens,) * rows)
        return token_losses(model, layout, torch.arange(number), token_ids.flatten()).mean()
    else:
        with reading(model, last):
            logits = model(input_ids=token_ids, use_cache=False).logits
    return logits.float().log_softmax(dim=-1).mean()


def fuse_dropout(model: nn.Module) -> None:
    """Use the dropout of GPUs, whose mask has one byte per number; a CPU's mask is as wide as the number."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.forward = lambda values, layer=module: torch.native_dropout(values, layer.p, layer.training)[0]  # type: ignore[method-assign,misc]


class PeakBytes(TorchDispatchMode):
    """Counts the bytes of storages that operations create: those alive `now`, and the most at a time, `peak`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._live: set[int] = set()

    def __torch_dispatch__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {storage._cdata for storage in _storages((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            key = storage._cdata
            if key not in given and key not in self._live:
                self._live.add(key)
                self.now += (size := storage.nbytes())
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._remove, key, size)
        return result

    def _remove(self, key: int, size: int) -> None:
        self._live.discard(key)
        self.now -= size


def _storages(values: Any) -> list[torch.UntypedStorage]:
    return [value.untyped_storage() for value in tree_leaves(values) if isinstance(value, Tensor)]
