"""Merges an adapter into whole weights and measures the change of the predictions for held-out examples.

QLoRA is trained on dequantized weights, so the adapter is added to these. Added to 4-bit weights, the sum would be
rounded to 4 bit again, and most of the adapter is smaller than a rounding step.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nexttoken.engine.answerers import load_answerer, make_answerer, make_encoder
from nexttoken.engine.heads import Head
from nexttoken.errors import UserError
from nexttoken.inference import Inference
from nexttoken.metrics import probabilities as metrics
from nexttoken.models import adapters
from nexttoken.models.base_model import read_base
from nexttoken.models.load import load_config, load_model, load_tokenizer
from nexttoken.models.processes import choose_device
from nexttoken.models.quantized import describe, saved_quantization
from nexttoken.models.saved import copy_licences, model_folder, save_whole, write_note
from nexttoken.prompts.prompt import Prompt
from nexttoken.settings import Settings
from nexttoken.types import AnswerLosses, Example


@dataclass(frozen=True)
class Comparison:
    """Differences after merging: of class probabilities, or of the losses of open answers, and of the log loss."""

    value: str
    num_rows: int
    largest: float
    mean: float
    log_loss_before: float
    log_loss_after: float

    @classmethod
    def of(cls, before: Any, after: Any, examples: Sequence[Example]) -> "Comparison":
        """Compare LabelPredictions or AnswerLosses of the same examples."""
        assert before.ids == after.ids
        if isinstance(before, AnswerLosses):
            name, values = "loss of an answer's token", [each.nll / each.num_tokens for each in (before, after)]
            losses = [float(each.nll.sum() / each.num_tokens.sum()) for each in (before, after)]
        else:
            labels = np.array([example.label for example in examples])
            name, values = "class probability", [before.probs, after.probs]
            losses = [metrics.log_loss(probs, labels) for probs in values]
        differences = np.abs(values[0] - values[1])
        return cls(name, len(before.ids), float(differences.max()), float(differences.mean()), *losses)

    def as_dict(self) -> dict[str, str]:
        return {
            "held-out rows compared": str(self.num_rows),
            f"largest difference of a {self.value}": f"{self.largest:.2g}",
            "mean difference": f"{self.mean:.2g}",
            "log loss with the adapter": f"{self.log_loss_before:.6f}",
            "log loss merged": f"{self.log_loss_after:.6f}",
        }


@dataclass(frozen=True)
class Merge:
    """One fold's adapter, its inference, and the floating-point type to merge and save in."""

    fold_dir: Path
    settings: Settings
    prompt: Prompt
    head: Head
    inference: Inference
    batch_tokens: int
    dtype: str

    def save(self, folder: Path, examples: Sequence[Example]) -> Comparison:
        """Write the merged model to `folder`, which appears only after the saved files have predicted `examples`.

        Raises UserError for an adapter of another base, and for a merged model that returns NaN.
        """
        answerer = load_answerer(self.fold_dir, self.settings, self.prompt, self.head, self.batch_tokens)
        before = self.inference(list(examples), answerer)
        num_classes, encoder = self.head.num_outputs(answerer.labels), answerer.encoder
        with model_folder(folder) as part:
            save_whole(part, self._merge(answerer.model, num_classes), encoder.tokenizer)
            copy_licences(self.settings.model, part)
            saved = self.settings.model.model_copy(update={"name_or_path": str(part), "revision": None})
            tokenizer = load_tokenizer(saved, ())
            model = load_model(saved, tokenizer, self.settings.max_tokens, num_classes=num_classes).to(choose_device())
            encoder = make_encoder(self.head, tokenizer, self.prompt, encoder.max_tokens)
            again = make_answerer(self.head, model, encoder, answerer.labels, answerer.batch_tokens)
            comparison = Comparison.of(before, self.inference(list(examples), again), examples)
            self._write_note(part, comparison)
        return comparison

    def _merge(self, model: Any, num_classes: int | None) -> nn.Module:
        """Dequantized weights on the CPU with the adapter added. Raises UserError if `dtype` cannot hold the sum."""
        assert self.settings.adapter is not None
        base = whole_weights(model.unload(), getattr(torch, self.dtype))
        adapted = adapters.load_adapter(base, self.settings.adapter, self.fold_dir / "adapter", num_classes)
        _untie_adapted_head(adapted.get_base_model())
        try:
            return adapted.merge_and_unload(safe_merge=True).to(base.dtype)
        except ValueError as error:
            raise UserError(f"merging in {self.dtype}: {error} try dtype=float32") from None

    def _write_note(self, folder: Path, comparison: Comparison) -> None:
        base = read_base(self.fold_dir / "adapter")
        quantization = self.settings.quantization or saved_quantization(load_config(self.settings.model))
        weights = f"the weights dequantised from {describe(quantization)}" if quantization else "the base's weights"
        method = f"added to {weights} in {self.dtype}"
        facts = {"base": base.name, "adapter": str(self.fold_dir), "method": method} | comparison.as_dict()
        write_note(folder, f"{base.name} with an adapter merged", base.name, facts)


def _untie_adapted_head(model: Any) -> None:
    """Give an adapted output head weights of its own: added to shared ones, the adapter would change the embeddings."""
    head = model.get_output_embeddings()
    if not hasattr(head, "get_base_layer"):
        return
    layer = head.get_base_layer()
    layer.weight = nn.Parameter(layer.weight.detach().clone(), requires_grad=False)
    for config in (model.config, model.config.get_text_config()):
        config.tie_word_embeddings = False


def whole_weights(model: Any, dtype: torch.dtype) -> Any:
    """`model` on the CPU with every weight in `dtype`, dequantized."""
    if getattr(model, "is_quantized", False):
        from transformers.integrations.bitsandbytes import Bnb4bitDeserialize, Bnb8bitDeserialize
        from transformers.integrations.bitsandbytes import logger as notices

        notices.setLevel(logging.ERROR)  # it reports the dtypes
        model = model.dequantize(dtype=dtype)
        model.is_loaded_in_4bit = model.is_loaded_in_8bit = False
        # Saving reverses the conversions of loading, and transformers cannot reverse these; whole weights need none.
        unpacking = (Bnb4bitDeserialize, Bnb8bitDeserialize)
        model._weight_conversions = [
            conversion
            for conversion in getattr(model, "_weight_conversions", None) or []
            if not any(isinstance(step, unpacking) for step in getattr(conversion, "operations", ()))
        ]
    return model.to("cpu", dtype)
