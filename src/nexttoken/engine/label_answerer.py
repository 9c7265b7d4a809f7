"""Asks the model every question once, in batches filled by tokens, and returns class probabilities."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from nexttoken.engine.answer_journal import NOT_KEPT, AnswerJournal, Keeping
from nexttoken.engine.batches import shared_batches, token_batches
from nexttoken.engine.forward.kept_prefixes import Read
from nexttoken.engine.forward.layout import read_before
from nexttoken.engine.forward.packed_attention import KeyValues
from nexttoken.engine.forward.prefixes import common_prefix
from nexttoken.engine.forward.shortcuts import keeps_prefix, read_prefix, shortcuts
from nexttoken.engine.heads import LabelHead
from nexttoken.engine.label_scores import collate, num_read
from nexttoken.engine.run_batches import ask_rows, halves
from nexttoken.models.memory import advice_on_memory
from nexttoken.models.processes import num_ranks
from nexttoken.prompts.encode_labels import EncodedPrompt, Encoder
from nexttoken.prompts.label_tokens import LabelTokens
from nexttoken.types import Example, LabelPredictions


class LabelAnswerer:
    """A model with its encoder: examples in, class probabilities out. `counts` adds up what each call cut."""

    def __init__(
        self, model: nn.Module, head: LabelHead, encoder: Encoder, labels: LabelTokens, batch_tokens: int
    ) -> None:
        self.model, self.head, self.encoder = model, head, encoder
        self.labels, self.batch_tokens = labels, batch_tokens
        self.keeping = Keeping()  # of answers, for a prediction that is killed to go on from
        self.read: Read | None = None
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
            asking = (self.model, self.head, encoded.prompts, self.labels, self.batch_tokens)
            return predict_labels(*asking, journal=journal, read=self.read)

    @contextmanager
    def remembering(self, unsure: Callable[[np.ndarray], np.ndarray]) -> Iterator[None]:
        """Within this context what is read of the first rows that are asked is kept for the ones after them, which may
        begin alike: of those rows whose probabilities (N, C) `unsure` marks (N,).
        """
        self.read = Read(unsure) if num_ranks() == 1 and keeps_prefix(self.model) else None
        try:
            yield
        finally:
            self.read = None


def predict_labels(
    model: nn.Module,
    head: LabelHead,
    prompts: Sequence[EncodedPrompt],
    labels: LabelTokens,
    batch_tokens: int,
    share_prefixes: bool = True,
    journal: AnswerJournal = NOT_KEPT,
    read: Read | None = None,
) -> LabelPredictions:
    """Class probabilities in the order of `prompts`: softmax in float32 over the label scores.

    What prompts begin with alike is read once, unless `share_prefixes` is off or the model cannot pack rows. The first
    prompts that are asked with `read` are kept in it, those after them go on from what it has of the same ids.
    The column `seconds` is each row's share of its batch's time; loading and tokenising are not in it.
    Raises UserError, naming ids, when the model returns something that is not finite.
    """
    contexts, device = head.contexts(labels), next(model.parameters()).device
    packs = shortcuts(model).packs
    shares = share_prefixes and packs
    rows = [prompt.token_ids for prompt in prompts]
    shared = common_prefix(rows) if shares and keeps_prefix(model) else 0
    goes_on = read is not None and read.is_filled
    again = [read.common(prompt, shared) for prompt in prompts] if read and goes_on else [0] * len(rows)
    lengths = [num_read(contexts, len(row) - (own or shared), packs) for row, own in zip(rows, again, strict=True)]
    extra = sum(map(len, contexts))
    if shares and not any(again):
        planned = shared_batches([row[shared:] for row in rows], batch_tokens, extra)
    else:
        planned = token_batches(lengths, batch_tokens, packs)
    prefix = read_prefix(model, rows[0][:shared]) if shared else None

    def ask(model: nn.Module, asked: Sequence[EncodedPrompt]) -> np.ndarray:
        before = [(read.find(prompt, shared) if read and goes_on else None) or prefix for prompt in asked]
        left = [len(prompt.token_ids) - read_before(own) for prompt, own in zip(asked, before, strict=True)]
        num_tokens = sum(num_read(contexts, number, packs) for number in left)
        if any(again) and len(asked) > 1 and num_tokens > batch_tokens:  # more than planned: not all was kept
            return np.concatenate([ask(model, part) for part in halves(asked)])
        kept = KeyValues(0) if read and read.room and not goes_on else None
        batch = collate(asked, contexts, packs, before, shares, kept).to(device)
        probs = head.scores(model, batch, labels).softmax(dim=-1).double().cpu().numpy()
        if read and kept:
            read.keep(batch, probs)
        return probs

    probs, seconds = ask_rows(model, prompts, lengths, planned, ask, "predict", journal)
    if read and not goes_on:
        read.fill(prompts, probs)
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
