"""The memory of one step, counted by running the model's own code on tensors that have a shape and no content.

No formula has to know the architecture: attention with or without stored scores, gated or plain layers, an adapter's
copies, what autocast keeps and what checkpointing drops are whatever transformers and peft really do.
"""

import copy
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nexttoken.engine.forward.head_rows import reading
from nexttoken.engine.forward.layout import Layout
from nexttoken.engine.forward.losses import token_losses
from nexttoken.errors import UserError
from nexttoken.models.adapters import add_adapter
from nexttoken.settings import Settings


@dataclass(frozen=True)
class Skeleton:
    """How to build a model without weights: what the settings say, in the dtype of its computation."""

    settings: Settings
    config: Any
    dtype: torch.dtype

    @property
    def num_layers(self) -> int:
        return self.config.get_text_config().num_hidden_layers

    @property
    def num_classes(self) -> int | None:
        """Outputs of a classification layer; None for a language model's head."""
        is_classifier = str(self.settings.head.get("_target_")).endswith(".Classification")
        return len(self.settings.prompt.get("labels") or "AB") if is_classifier else None

    @property
    def writes(self) -> bool:
        """Whether answers are open: any token may be one of theirs, and has logits then."""
        return str(self.settings.head.get("_target_")).endswith(".AnswerText")

    def build(self, num_layers: int | None = None, adapted: bool = True) -> Any:
        """The model on the meta device, with its adapter unless told otherwise, cut to `num_layers`."""
        import transformers

        config = cut(self.config, num_layers or self.num_layers)
        kind: Any = transformers.AutoModelForCausalLM
        if self.num_classes is not None:
            kind, config.num_labels = transformers.AutoModelForSequenceClassification, self.num_classes
        options = {"trust_remote_code": True} if self.settings.model.trust_remote_code else {}
        attention = self.settings.model.attn_implementation
        # Fused attention keeps the same tensors in every implementation; sdpa is the one that is always there.
        fused = attention not in (None, "eager", "sdpa")
        with torch.device("meta"):
            try:
                model = kind.from_config(
                    config, dtype=self.dtype, attn_implementation="sdpa" if fused else attention, **options
                )
            except ValueError as error:  # such as an attention or a classification that the architecture lacks
                reason = " ".join(str(error).split())[:160]
                head = "classification" if self.num_classes else "label"
                raise UserError(
                    f"{config.model_type} with head={head}, model.attn_implementation={attention} is refused: {reason}"
                ) from None
            adapter = self.settings.adapter if adapted else None
            return model if adapter is None else add_adapter(model, adapter, self.num_classes)


def cut(config: Any, num_layers: int) -> Any:
    """A copy of a transformers config with fewer layers; lists that name something per layer are cut, too."""
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
    """What goes through the model at once, and how: in `training` there is a backward pass, too."""

    rows: int
    tokens: int
    training: bool
    mixed: bool  # float32 weights or adapters, products in 16 bit
    on_gpu: bool


@dataclass(frozen=True)
class Counted:
    """Bytes held between the forward and the backward pass, and at the worst moment."""

    held: int
    peak: int


def step_bytes(skeleton: Skeleton, step: Step) -> int:
    """Peak bytes of a step beyond weights, gradients and optimizer states.

    One and two layers are run. What is held grows by the difference with each further layer; what the backward pass
    needs on top of it does not grow. Exact for layers that are alike; training all weights of a model whose embeddings
    outweigh two layers is overstated by the embeddings' gradient at most.
    """
    if skeleton.num_layers <= 2:
        return count(skeleton, skeleton.num_layers, step).peak
    one, two = (count(skeleton, depth, step) for depth in (1, 2))
    return two.peak + (two.held - one.held) * (skeleton.num_layers - 2)


def count(skeleton: Skeleton, num_layers: int, step: Step) -> Counted:
    """Run a step on the model cut to `num_layers`."""
    model, fit = skeleton.build(num_layers, adapted=step.training), skeleton.settings.fit
    if step.training and fit.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    model.train(step.training)
    if step.on_gpu:
        fuse_dropout(model)
    autocast = torch.autocast("cpu", torch.bfloat16) if step.mixed else nullcontext()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.set_grad_enabled(step.training):
        model.to_empty(device="cpu")
        token_ids = torch.zeros((step.rows, step.tokens), dtype=torch.long)
        with autocast:
            return run(model, token_ids, skeleton.writes or (step.training and fit.text_epochs > 0))


def run(model: Any, token_ids: Tensor, whole_text: bool = False) -> Counted:
    """Count a forward pass (and a backward pass, while gradients are enabled) over `token_ids` (R, T).

    Gradients of the step's earlier batches are there already, so they are not counted again.
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
    """A scalar from the same tensors that the project's losses are made of: logits of every token, or of row ends."""
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model  # inside peft's wrapper
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
    """Drop as GPUs do, which keep a mask of one byte a number; the CPU keeps one as wide as the number."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.forward = partial(_fused, module)  # type: ignore[method-assign]


def _fused(dropout: nn.Dropout, values: Tensor) -> Tensor:
    return torch.native_dropout(values, dropout.p, dropout.training)[0]


class PeakBytes(TorchDispatchMode):
    """Counts the bytes of all storages that operations make and that live at the same time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._live: set[int] = set()

    def __torch_dispatch__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {storage._cdata for storage in _storages((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            if storage._cdata not in given | self._live:
                self._add(storage)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._live.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._live.discard(key)
        self.now -= size


def _storages(values: Any) -> list[torch.UntypedStorage]:
    return [value.untyped_storage() for value in tree_leaves(values) if isinstance(value, Tensor)]
