"""Class probabilities of examples: one pass of each prompt through the model, in batches filled by tokens."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from nexttoken.engine.batches import shared_batches, token_batches
from nexttoken.engine.float16_trial import MAX_OVERFLOWING, is_float32_instead, leave_float16
from nexttoken.engine.forward.layout import prefix_length
from nexttoken.engine.forward.packed_attention import KeyValues
from nexttoken.engine.forward.prefixes import PrefixCache
from nexttoken.engine.forward.shortcuts import allows_cached_prefix, compute_common_prefix, shortcuts
from nexttoken.engine.heads import LabelHead
from nexttoken.engine.journal import NO_JOURNAL, JournalFolder, LabelJournal
from nexttoken.engine.label_scores import Batch, collate, label_scores, num_read
from nexttoken.engine.non_finite import fill_with_prior, run_again_in_float32
from nexttoken.engine.run_batches import halves, run_batches
from nexttoken.models.memory import advice_on_memory
from nexttoken.models.precision import autocast_dtype
from nexttoken.models.processes import num_ranks
from nexttoken.prompts.encode_labels import EncodedPrompt, Encoder
from nexttoken.prompts.label_tokens import LabelTokens
from nexttoken.types import Example, LabelPredictions


def num_tokens(prompt: Any) -> int:
    """The number of tokens of an encoded prompt, with the texts of its candidates if it has any."""
    return len(prompt.token_ids) + sum(map(len, getattr(prompt, "branches", ())))


class ModelAnswerer:
    """A model with its encoder. `counts` and `prompts` collect the encoder's results since `reset_counts`."""

    def __init__(self, model: nn.Module, encoder: Any, labels: LabelTokens, batch_tokens: int) -> None:
        self.model, self.encoder, self.labels, self.batch_tokens = model, encoder, labels, batch_tokens
        self.journals = JournalFolder()
        self.reset_counts()

    def reset_counts(self) -> None:
        self.counts: Counter[str] = Counter()
        self.prompts: list[Any] = []

    def collect(self, encoded: Any) -> Any:
        """Add encoded examples to `counts` and `prompts`; return their prompts."""
        self.counts.update(encoded.counts())
        self.counts["num_prompt_tokens"] += sum(map(num_tokens, encoded.prompts))
        self.prompts += encoded.prompts
        return encoded.prompts

    def leave_float16(self, prompts: Sequence[Any]) -> None:
        """Compute in float32 from now on where the prompts show that the model does not fit float16.

        Single rows that overflow do not: they are run again by themselves.
        """
        with advice_on_memory(self.batch_tokens):
            leave_float16(self.model, [prompt.token_ids for prompt in prompts], MAX_OVERFLOWING)

    @property
    def environment(self) -> dict[str, str | int]:
        """The settings that the time of an answer depends on: device, precision, tokens per batch."""
        weights = next(self.model.parameters())
        num_threads = torch.get_num_threads()
        device = f"{weights.device.type}, {num_threads} thread{'s' * (num_threads > 1)}"
        if weights.is_cuda:
            device = torch.cuda.get_device_name(weights.device)
        if num_ranks() > 1:
            device = f"{num_ranks()} x {device}"  # their seconds are added up
        dtype = torch.float32 if is_float32_instead(self.model) else autocast_dtype(self.model) or weights.dtype
        precision = ", ".join([str(dtype).removeprefix("torch."), *weight_bits(self.model)])
        return {"device": device, "precision": precision, "batch_tokens": self.batch_tokens}


class LabelAnswerer(ModelAnswerer):
    """Examples in, class probabilities out."""

    def __init__(
        self, model: nn.Module, head: LabelHead, encoder: Encoder, labels: LabelTokens, batch_tokens: int
    ) -> None:
        super().__init__(model, encoder, labels, batch_tokens)
        self.head = head
        self.prefixes: PrefixCache | None = None

    def __call__(self, examples: Sequence[Example]) -> LabelPredictions:
        prompts = self.collect(self.encoder.encode(examples, self.labels))
        self.leave_float16(prompts)
        identity = {"labels": self.labels.continuations, "precision": self.environment["precision"]}
        with advice_on_memory(self.batch_tokens), self.journals.journal(identity) as journal:
            model = (self.model, self.head, prompts, self.labels, self.batch_tokens)
            return predict_labels(*model, journal=journal, prefixes=self.prefixes, counts=self.counts)

    @contextmanager
    def caching_prefixes(self, unsure: Callable[[np.ndarray], np.ndarray]) -> Iterator[None]:
        """Within this context the first call fills a PrefixCache, which later calls use."""
        self.prefixes = PrefixCache(unsure) if num_ranks() == 1 and allows_cached_prefix(self.model) else None
        try:
            yield
        finally:
            self.prefixes = None


def predict_labels(
    model: nn.Module,
    head: LabelHead,
    prompts: Sequence[EncodedPrompt],
    labels: LabelTokens,
    batch_tokens: int,
    share_prefixes: bool = True,
    journal: LabelJournal = NO_JOURNAL,
    prefixes: PrefixCache | None = None,
    counts: Counter[str] | None = None,
) -> LabelPredictions:
    """Class probabilities in the order of `prompts`: softmax in float32 over the label scores.

    Common prefixes of prompts are computed once, unless `share_prefixes` is off or the model cannot pack rows. The
    first call with `prefixes` fills this cache; later calls continue from the cached prefix of the same id.
    The column `seconds` is each prompt's share of its batch's time, without loading and tokenizing.
    Rows without finite logits are asked again in float32, and have the other rows' mean where that does not help;
    `counts` receives their numbers. Raises UserError, naming ids, where most rows stay without finite logits.
    """
    contexts, device, packs = head.contexts(labels), next(model.parameters()).device, shortcuts(model).packs
    shares = share_prefixes and packs
    rows = [prompt.token_ids for prompt in prompts]
    common = compute_common_prefix(model, rows) if shares else None
    shared = prefix_length(common)
    cache = prefixes if prefixes and prefixes.is_filled else None  # of an earlier call
    cached = [cache.common_length(prompt, shared) if cache else 0 for prompt in prompts]
    lengths = [num_read(contexts, len(row) - (size or shared), packs) for row, size in zip(rows, cached, strict=True)]
    if shares and not any(cached):
        batches = shared_batches([row[shared:] for row in rows], batch_tokens, sum(map(len, contexts)))
    else:
        batches = token_batches(lengths, batch_tokens, packs)

    def class_probs(model: nn.Module, laid_out: Batch) -> np.ndarray:
        return head.scores(model, laid_out, labels).softmax(dim=-1).double().cpu().numpy()

    def run_row(model: nn.Module, prompt: EncodedPrompt) -> np.ndarray:  # without keys and values of 16 bits
        return class_probs(model, collate([prompt], contexts, packs).to(device))[0]

    def run_batch(model: nn.Module, batch: Sequence[EncodedPrompt]) -> np.ndarray:
        before = [(cache.lookup(prompt, shared) if cache else None) or common for prompt in batch]
        left = [len(prompt.token_ids) - prefix_length(prefix) for prompt, prefix in zip(batch, before, strict=True)]
        num_tokens = sum(num_read(contexts, number, packs) for number in left)
        if any(cached) and len(batch) > 1 and num_tokens > batch_tokens:  # some prefixes did not fit into the cache
            return np.concatenate([run_batch(model, half) for half in halves(batch)])
        saved = KeyValues(0) if prefixes and prefixes.free_bytes and not cache else None
        laid_out = collate(batch, contexts, packs, before, shares, saved).to(device)
        probs = class_probs(model, laid_out)
        if prefixes and saved:
            prefixes.store(laid_out, probs)
        return probs

    probs, seconds = run_batches(model, prompts, lengths, batches, run_batch, "predict", journal)
    again = {"num_in_float32": run_again_in_float32(model, prompts, probs, run_row)}
    again["num_prior"] = fill_with_prior(prompts, probs)
    if counts is not None:
        counts.update({name: number for name, number in again.items() if number})
    if prefixes and not cache:
        prefixes.finish(prompts, probs)
    ids = tuple(prompt.id for prompt in prompts)
    return LabelPredictions(ids, probs / probs.sum(axis=1, keepdims=True), {"seconds": seconds})


def weight_bits(model: nn.Module) -> list[str]:
    """Quantization of the weights, such as `4 bit (nf4)`, `8 bit` or `4 bit (gptq)`; empty without one."""
    saved: Any = getattr(getattr(model, "config", None), "quantization_config", None)
    if not saved:
        return []
    saved = saved if isinstance(saved, dict) else saved.to_dict()
    if saved.get("load_in_8bit"):
        return ["8 bit"]
    if saved.get("load_in_4bit"):
        return [f"4 bit ({saved['bnb_4bit_quant_type']})"]
    method = getattr(saved["quant_method"], "value", saved["quant_method"])  # an enumeration or its text
    return [f"{saved['bits']} bit ({method})" if "bits" in saved else str(method)]


def mass_outside(
    model: nn.Module, prompts: Sequence[EncodedPrompt], labels: LabelTokens, batch_tokens: int
) -> np.ndarray:
    """The share (N,) of a full softmax that no label has, 0 to 1, in the order of `prompts`.

    Labels of several tokens count with the probability of exactly their tokens. The logits of the whole vocabulary are
    computed at the answer's places, which predictions do not need: ask few rows.
    """
    contexts, packs, device = labels.contexts, shortcuts(model).packs, next(model.parameters()).device
    lengths = [num_read(contexts, len(prompt.token_ids), packs) for prompt in prompts]

    def labels_share(model: nn.Module, batch: Sequence[EncodedPrompt]) -> np.ndarray:
        scores = label_scores(model, collate(batch, contexts, packs).to(device), labels, whole_vocabulary=True)
        return scores.exp().sum(dim=1, keepdim=True).double().cpu().numpy()

    batches = token_batches(lengths, batch_tokens, packs)
    inside, _ = run_batches(model, prompts, lengths, batches, labels_share, "labels' share")
    return np.clip(1 - inside[:, 0], 0.0, 1.0)
