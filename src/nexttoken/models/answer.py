"""Asks the model every question once, in batches filled by tokens, and returns class probabilities."""

import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from nexttoken.errors import UserError, first_five
from nexttoken.models.batches import token_batches
from nexttoken.models.collective import gather_rows
from nexttoken.models.encode import EncodedPrompt, Encoder
from nexttoken.models.heads import LabelHead
from nexttoken.models.labels import LabelTokens
from nexttoken.models.memory import advice_on_memory, go_on_in_halves, is_out_of_memory
from nexttoken.models.readout import collate, num_read
from nexttoken.models.sharded import is_sharded
from nexttoken.progress import Progress
from nexttoken.ranks import num_ranks, rank
from nexttoken.types import Example, LabelPredictions


class LabelAnswerer:
    """A model with its encoder: examples in, class probabilities out. `counts` adds up what each call cut."""

    def __init__(
        self, model: nn.Module, head: LabelHead, encoder: Encoder, labels: LabelTokens, batch_tokens: int
    ) -> None:
        self.model, self.head, self.encoder = model, head, encoder
        self.labels, self.batch_tokens = labels, batch_tokens
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
        with advice_on_memory(self.batch_tokens):
            return predict_labels(self.model, self.head, encoded.prompts, self.labels, self.batch_tokens)


@torch.inference_mode()
def predict_labels(
    model: nn.Module, head: LabelHead, prompts: Sequence[EncodedPrompt], labels: LabelTokens, batch_tokens: int
) -> LabelPredictions:
    """Class probabilities in the order of `prompts`: softmax in float32 over the label scores.

    The column `seconds` is each row's share of its batch's time, by tokens; loading and tokenising are not in it.
    With several processes each answers its share, and all of them return all rows.
    Raises UserError, naming ids, when the model returns something that is not finite: no NaN ever reaches a file.
    """
    training = model.training
    model.eval()
    lengths = [num_read(head.contexts(labels), len(prompt.token_ids)) for prompt in prompts]
    shares = [own_batches(lengths, batch_tokens, number) for number in range(num_ranks())]
    batches = deque(shares[rank()])
    answers: dict[int, np.ndarray] = {}
    halved = is_sharded(model)  # whose processes have to make equally many calls
    with Progress(sum(map(len, batches)), "predict") as progress:
        while batches:
            rows, start = batches.popleft(), time.perf_counter()
            probs = _ask(model, head, [prompts[row] for row in rows], labels, may_fail=not halved)
            if probs is None:  # memory was too short: every batch that is left goes through in halves, once
                halved = True
                go_on_in_halves()
                batches = deque(half for batch in (rows, *batches) for half in halves(batch))
                continue
            own = np.array([lengths[row] for row in rows])
            seconds = (time.perf_counter() - start) * own / own.sum()
            answers |= dict(zip(rows, np.column_stack([probs, seconds]), strict=True))
            progress.advance(len(rows))
    num_fillers = max(map(len, shares)) - len(shares[rank()])
    for _ in range(num_fillers if is_sharded(model) else 0):
        _ask(model, head, prompts[-1:], labels, may_fail=False)
    model.train(training)
    gathered = np.array(gather_rows(answers, len(prompts)))
    probs, seconds = gathered[:, :-1], gathered[:, -1]
    bad = [p.id for p, row in zip(prompts, probs, strict=True) if not np.isfinite(row).all()]
    if bad:
        raise UserError(
            f"the model's logits are not finite for {len(bad)} rows ({first_five(bad)}); try model.dtype=float32"
        )
    ids = tuple(p.id for p in prompts)
    return LabelPredictions(ids, probs / probs.sum(axis=1, keepdims=True), {"seconds": seconds})


def _ask(
    model: nn.Module, head: LabelHead, prompts: Sequence[EncodedPrompt], labels: LabelTokens, may_fail: bool
) -> np.ndarray | None:
    """Probabilities (N, K) of one batch; None when memory was too short for it and it `may_fail`."""
    device = next(model.parameters()).device
    batch = collate(prompts, head.contexts(labels)).to(device)
    try:
        return head.scores(model, batch, labels).softmax(dim=-1).double().cpu().numpy()
    except Exception as error:
        if may_fail and is_out_of_memory(error):
            return None
        raise


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


def own_batches(lengths: Sequence[int], batch_tokens: int, rank: int) -> list[list[int]]:
    """The row indices that a process answers, in batches."""
    own = range(rank, len(lengths), num_ranks())
    return [[own[place] for place in batch] for batch in token_batches([lengths[row] for row in own], batch_tokens)]


def halves(rows: list[int]) -> list[list[int]]:
    middle = -(-len(rows) // 2)
    return [half for half in (rows[:middle], rows[middle:]) if half]
