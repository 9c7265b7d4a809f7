"""A model that answers in text: what known answers cost it, and the answers that it writes itself."""

from collections import Counter, deque
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from nexttoken.errors import UserError, first_five
from nexttoken.models.answer import describe_environment, halves, own_batches
from nexttoken.models.collective import gather_rows
from nexttoken.models.encode_text import TextEncoder
from nexttoken.models.encoded_texts import NO_LABELS, EncodedText
from nexttoken.models.generate.batch import TransformersGenerator
from nexttoken.models.memory import advice_on_memory, go_on_in_halves, is_out_of_memory
from nexttoken.models.sharded import is_sharded
from nexttoken.models.texts import collate_texts, row_losses
from nexttoken.models.writer import Writer
from nexttoken.progress import Progress
from nexttoken.ranks import num_ranks, rank
from nexttoken.types import AnswerLosses, Example


class TextAnswerer:
    """A model with its encoder: examples in, losses of their answers or new answers out."""

    def __init__(self, model: nn.Module, encoder: TextEncoder, batch_tokens: int) -> None:
        self.model, self.encoder, self.batch_tokens = model, encoder, batch_tokens
        self.labels = NO_LABELS
        self.forget()

    def forget(self) -> None:
        """Start counting anew."""
        self.counts: Counter[str] = Counter()
        self.prompts: list[EncodedText] = []

    @property
    def environment(self) -> dict[str, str | int]:
        return describe_environment(self.model, self.batch_tokens)

    def __call__(self, examples: Sequence[Example]) -> AnswerLosses:
        """What each example's own answer costs the model, its end among it; earlier utterances are only read.

        Of an answer that is longer than the budget only the beginning counts, in tokens and in characters.
        """
        encoded = self.encoder.encode(examples)
        self.counts.update(encoded.counts())
        self.prompts += encoded.prompts
        with advice_on_memory(self.batch_tokens):
            nll = measure_losses(self.model, encoded.prompts, self.batch_tokens)
        return AnswerLosses(
            tuple(row.id for row in encoded.prompts),
            nll,
            np.array([row.num_targets for row in encoded.prompts]),
            np.array([self._num_characters(*pair) for pair in zip(examples, encoded.prompts, strict=True)]),
        )

    def _num_characters(self, example: Example, row: EncodedText) -> int:
        scored = self.encoder.tokenizer.decode(row.token_ids[row.learnt]) if row.answer_cut else example.answer
        return len(scored or "")

    @property
    def writer(self) -> Writer:
        """What writes new answers with this model."""
        generator = TransformersGenerator(self.model, self.encoder.tokenizer, self.batch_tokens, self.encoder.ends)
        return Writer(self.encoder, generator)


@torch.inference_mode()
def measure_losses(model: nn.Module, rows: Sequence[EncodedText], batch_tokens: int) -> np.ndarray:
    """Each row's loss (N,) float64 in nats, summed over its learnt tokens, in the order of `rows`.

    With several processes each reads its share, and all of them return all rows. Raises UserError, naming ids, where
    a loss is not finite.
    """
    training = model.training
    model.eval()
    lengths = [len(row.token_ids) for row in rows]
    shares = [own_batches(lengths, batch_tokens, number) for number in range(num_ranks())]
    batches = deque(shares[rank()])
    losses: dict[int, np.ndarray] = {}
    halved = is_sharded(model)  # whose processes have to make equally many calls
    with Progress(sum(map(len, batches)), "read answers") as progress:
        while batches:
            members = batches.popleft()
            found = _losses(model, [rows[index] for index in members], may_fail=not halved)
            if found is None:  # memory was too short: every batch that is left goes through in halves, once
                halved = True
                go_on_in_halves()
                batches = deque(half for batch in (members, *batches) for half in halves(batch))
                continue
            losses |= dict(zip(members, found[:, None], strict=True))
            progress.advance(len(members))
    num_fillers = max(map(len, shares)) - len(shares[rank()])
    for _ in range(num_fillers if is_sharded(model) else 0):
        _losses(model, rows[-1:], may_fail=False)
    model.train(training)
    nll = np.array(gather_rows(losses, len(rows)))[:, 0]
    if bad := [row.id for row, loss in zip(rows, nll, strict=True) if not np.isfinite(loss)]:
        raise UserError(
            f"the model's logits are not finite for {len(bad)} rows ({first_five(bad)}); try model.dtype=float32"
        )
    return nll


def _losses(model: nn.Module, rows: Sequence[EncodedText], may_fail: bool) -> np.ndarray | None:
    """Losses (N,) of one batch; None when memory was too short for it and it `may_fail`."""
    batch = collate_texts(rows).to(next(model.parameters()).device)
    try:
        return row_losses(model, batch).double().cpu().numpy()
    except Exception as error:
        if may_fail and is_out_of_memory(error):
            return None
        raise
