"""Asks the model every question once, in batches filled by tokens, and returns class probabilities."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from nexttoken.models.answer_journal import NOT_KEPT, AnswerJournal, Keeping
from nexttoken.models.ask import ask_rows
from nexttoken.models.batches import shared_batches, token_batches
from nexttoken.models.encode import EncodedPrompt, Encoder
from nexttoken.models.heads import LabelHead
from nexttoken.models.labels import LabelTokens
from nexttoken.models.memory import advice_on_memory
from nexttoken.models.prefixes import common_prefix
from nexttoken.models.readout import collate, num_read
from nexttoken.models.shortcuts import keeps_prefix, read_prefix, shortcuts
from nexttoken.ranks import num_ranks
from nexttoken.types import Example, LabelPredictions


class LabelAnswerer:
    """A model with its encoder: examples in, class probabilities out. `counts` adds up what each call cut."""

    def __init__(
        self, model: nn.Module, head: LabelHead, encoder: Encoder, labels: LabelTokens, batch_tokens: int
    ) -> None:
        self.model, self.head, self.encoder = model, head, encoder
        self.labels, self.batch_tokens = labels, batch_tokens
        self.keeping = Keeping()  # of answers, for a prediction that is killed to go on from
        self.forget()

    def forget(self) -> None:
        """Start counting anew."""
        self.counts: Counter[str] = Counter()
        self.prompts: list[EncodedPrompt] = []

    @property
    def environment(self) -> dict[str, str | int]:
        return describe_environment(self.model, self.batch_tokens)

    def __call__(self, examples: Sequence[Example]) -> LabelPredictions:
        encoded = self.encoder.encode(examples, self.labels)
        self.counts.update(encoded.counts())
        self.prompts += encoded.prompts
        asked = {"labels": self.labels.continuations, "precision": self.environment["precision"]}
        with advice_on_memory(self.batch_tokens), self.keeping.journal(asked) as journal:
            return predict_labels(
                self.model, self.head, encoded.prompts, self.labels, self.batch_tokens, journal=journal
            )


def predict_labels(
    model: nn.Module,
    head: LabelHead,
    prompts: Sequence[EncodedPrompt],
    labels: LabelTokens,
    batch_tokens: int,
    share_prefixes: bool = True,
    journal: AnswerJournal = NOT_KEPT,
) -> LabelPredictions:
    """Class probabilities in the order of `prompts`: softmax in float32 over the label scores.

    What prompts begin with alike is read once, unless `share_prefixes` is off or the model cannot pack rows.
    The column `seconds` is each row's share of its batch's time; loading and tokenising are not in it.
    Raises UserError, naming ids, when the model returns something that is not finite.
    """
    contexts, device = head.contexts(labels), next(model.parameters()).device
    packs = shortcuts(model).packs
    shares = share_prefixes and packs
    rows = [prompt.token_ids for prompt in prompts]
    shared = common_prefix(rows) if shares and keeps_prefix(model) else 0
    lengths = [num_read(contexts, len(row) - shared, packs) for row in rows]
    extra = sum(map(len, contexts))
    if shares:
        planned = shared_batches([row[shared:] for row in rows], batch_tokens, extra)
    else:
        planned = token_batches(lengths, batch_tokens, packs)
    prefix = read_prefix(model, rows[0][:shared]) if shared else None

    def ask(model: nn.Module, asked: Sequence[EncodedPrompt]) -> np.ndarray:
        batch = collate(asked, contexts, packs, prefix, shares).to(device)
        return head.scores(model, batch, labels).softmax(dim=-1).double().cpu().numpy()

    probs, seconds = ask_rows(model, prompts, lengths, planned, ask, "predict", journal)
    ids = tuple(prompt.id for prompt in prompts)
    return LabelPredictions(ids, probs / probs.sum(axis=1, keepdims=True), {"seconds": seconds})


def describe_environment(model: nn.Module, batch_tokens: int) -> dict[str, str | int]:
    """What the time of an answer depends on: device, precision of the weights, tokens in a batch."""
    weights = next(model.parameters())
    threads = f"{torch.get_num_threads()} threads"
    device = torch.cuda.get_device_name(weights.device) if weights.is_cuda else f"{weights.device.type}, {threads}"
    if num_ranks() > 1:
        device = f"{num_ranks()} x {device}"  # whose seconds are added up
    precision = ", ".join([str(weights.dtype).removeprefix("torch."), *weight_bits(model)])
    return {"device": device, "precision": precision, "batch_tokens": batch_tokens}


def weight_bits(model: nn.Module) -> list[str]:
    """`4 bit (nf4)`, `8 bit`, `4 bit (gptq)`: how the weights are quantised; nothing where they are whole."""
    quantization: Any = getattr(getattr(model, "config", None), "quantization_config", None)
    if not quantization:
        return []
    saved = quantization if isinstance(quantization, dict) else quantization.to_dict()
    if saved.get("load_in_8bit"):
        return ["8 bit"]
    if saved.get("load_in_4bit"):
        return [f"4 bit ({saved['bnb_4bit_quant_type']})"]
    method = getattr(saved["quant_method"], "value", saved["quant_method"])  # an enumeration, or its text
    return [f"{saved['bits']} bit ({method})" if "bits" in saved else str(method)]
