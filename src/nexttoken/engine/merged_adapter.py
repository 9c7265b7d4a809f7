"""Merges an adapter into whole weights, and measures on real rows what that changes.

A LoRA is trained against the weights that it sees. For QLoRA these are the dequantised ones, so they are what it is
added to. Adding it to the quantised weights rounds the sum to 4 bit again, and most of what was learnt is below a step.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nexttoken.engine.answerers import AnyEncoder, load_answerer, make_answerer, make_encoder
from nexttoken.engine.heads import Head
from nexttoken.errors import UserError
from nexttoken.inference import Inference
from nexttoken.metrics import probabilities as metrics
from nexttoken.models import adapters
from nexttoken.models.base_model import read_base
from nexttoken.models.load import load_config, load_model, load_tokenizer
from nexttoken.models.quantized import describe, saved_quantization
from nexttoken.models.saved import copy_licences, place, save_whole, whole_folder, write_note
from nexttoken.prompts.prompt import Prompt
from nexttoken.settings import Settings
from nexttoken.types import AnswerLosses, Example, LabelPredictions

Predictions = LabelPredictions | AnswerLosses


@dataclass(frozen=True)
class Comparison:
    """What merging changed on some rows: class probabilities, or the losses of open answers, and the log loss."""

    what: str
    num_rows: int
    largest: float
    mean: float
    log_loss_before: float
    log_loss_after: float

    @classmethod
    def of(cls, before: Predictions, after: Predictions, examples: Sequence[Example]) -> "Comparison":
        assert before.ids == after.ids
        values: list[np.ndarray]
        if isinstance(before, AnswerLosses) and isinstance(after, AnswerLosses):
            what, values = "loss of an answer's token", [asked.nll / asked.num_tokens for asked in (before, after)]
            losses = [float(asked.nll.sum() / asked.num_tokens.sum()) for asked in (before, after)]
        else:
            labels = np.array([example.label for example in examples])
            what, values = "class probability", [before.probs, after.probs]  # type: ignore[union-attr]
            losses = [metrics.log_loss(probs, labels) for probs in values]
        differences = np.abs(values[0] - values[1])
        return cls(what, len(before.ids), float(differences.max()), float(differences.mean()), *losses)

    def as_dict(self) -> dict[str, str]:
        return {
            "held-out rows compared": str(self.num_rows),
            f"largest difference of a {self.what}": f"{self.largest:.2g}",
            "mean difference": f"{self.mean:.2g}",
            "log loss with the adapter": f"{self.log_loss_before:.6f}",
            "log loss merged": f"{self.log_loss_after:.6f}",
        }


@dataclass(frozen=True)
class Merge:
    """One fold's adapter, how it is asked, and the floating-point type to merge and save in."""

    fold_dir: Path
    settings: Settings
    prompt: Prompt
    head: Head
    inference: Inference
    batch_tokens: int
    dtype: str

    def save(self, folder: Path, examples: Sequence[Example]) -> Comparison:
        """Write the merged model to `folder`, which appears only once the saved files have answered `examples`.

        Raises UserError for an adapter that does not fit its base, and for a merged model that gives NaN.
        """
        answerer = load_answerer(self.fold_dir, self.settings, self.prompt, self.head, self.batch_tokens)
        before = self.inference(list(examples), answerer)
        num_classes, encoder = self.head.num_outputs(answerer.labels), answerer.encoder
        with whole_folder(folder) as part:
            save_whole(part, self._merge(answerer.model, num_classes), encoder.tokenizer)
            copy_licences(self.settings.model, part)
            model, encoder = self._load(part, num_classes, encoder)
            again = make_answerer(self.head, place(model), encoder, answerer.labels, answerer.batch_tokens)
            after = self.inference(list(examples), again)
            comparison = Comparison.of(before, after, examples)
            self._write_note(part, comparison)
        return comparison

    def _merge(self, model: Any, num_classes: int | None) -> nn.Module:
        """Whole weights on the CPU: the base without its adapter, dequantised, and the adapter put on it and added.

        Raises UserError where `dtype` cannot hold the sum.
        """
        assert self.settings.adapter is not None
        base = whole_weights(model.unload(), getattr(torch, self.dtype))
        adapted = adapters.load_adapter(base, self.settings.adapter, self.fold_dir / "adapter", num_classes)
        try:
            return adapted.merge_and_unload(safe_merge=True).to(base.dtype)
        except ValueError as error:
            raise UserError(f"merging in {self.dtype}: {error} try dtype=float32") from None

    def _load(self, folder: Path, num_classes: int | None, encoder: AnyEncoder) -> tuple[nn.Module, AnyEncoder]:
        """What was saved, as anybody would load it, in the type it was saved in."""
        saved = self.settings.model.model_copy(update={"name_or_path": str(folder), "revision": None})
        tokenizer = load_tokenizer(saved, ())
        model = load_model(saved, tokenizer, self.settings.max_tokens, num_classes=num_classes)
        return model, make_encoder(self.head, tokenizer, self.prompt, encoder.max_tokens)

    def _write_note(self, folder: Path, comparison: Comparison) -> None:
        base = read_base(self.fold_dir / "adapter")
        quantization = self.settings.quantization or saved_quantization(load_config(self.settings.model))
        weights = f"the weights dequantised from {describe(quantization)}" if quantization else "the base's weights"
        facts = {
            "base": base.name,
            "adapter": str(self.fold_dir),
            "method": f"added to {weights} in {self.dtype}",
        }
        write_note(folder, f"{base.name} with an adapter merged", base.name, facts | comparison.as_dict())


def whole_weights(model: Any, dtype: torch.dtype) -> Any:
    """`model` on the CPU with every weight in `dtype`; quantised ones become what they stand for."""
    if getattr(model, "is_quantized", False):
        from transformers.integrations.bitsandbytes import Bnb4bitDeserialize, Bnb8bitDeserialize
        from transformers.integrations.bitsandbytes import logger as notices

        notices.setLevel(logging.ERROR)  # it would tell the dtypes that were asked for
        model = model.dequantize(dtype=dtype)
        model.is_loaded_in_4bit = model.is_loaded_in_8bit = False
        # Saving undoes what loading did, and transformers cannot undo this; it has left no trace in whole weights.
        unpacking = (Bnb4bitDeserialize, Bnb8bitDeserialize)
        model._weight_conversions = [
            conversion
            for conversion in getattr(model, "_weight_conversions", None) or []
            if not any(isinstance(step, unpacking) for step in getattr(conversion, "operations", ()))
        ]
    return model.to("cpu", dtype)
