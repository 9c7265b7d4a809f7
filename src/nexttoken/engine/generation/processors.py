"""What is done to the scores before a token is chosen: a look for NaN, banned texts, and each row's own draws."""

import hashlib
import re
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from nexttoken.engine.generation.vocabulary import Answers, Vocabulary


class NotFinite(LogitsProcessor):
    """Remembers in which step a row's scores were first not finite, without changing them."""

    def __init__(self, num_rows: int, width: int, device: torch.device) -> None:
        self.width, self.first = width, torch.full((num_rows,), torch.iinfo(torch.int64).max, device=device)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        bad = ~scores.amax(dim=-1).isfinite()  # NaN and infinity survive the maximum; single -inf may be meant
        self.first = torch.where(bad, self.first.clamp_max(input_ids.shape[1] - self.width), self.first)
        return scores


class BannedTexts(LogitsProcessor):
    """Takes away every token that would complete a banned text, however the text is cut into tokens.

    transformers' `bad_words_ids` forbids one sequence of tokens for each banned text; the same text in other tokens
    gets past it. Here a token is forbidden when its bytes hold the text, or begin with all of it that is still missing.
    End tokens are never forbidden.
    """

    def __init__(self, banned: Sequence[bytes], vocabulary: Vocabulary, stop_ids: Collection[int]) -> None:
        allowed = {*stop_ids}
        tokens = sorted((token, id) for id, token in enumerate(vocabulary.tokens) if token and id not in allowed)
        any_of_them = re.compile(b"|".join(map(re.escape, banned)))
        self.always = [id for token, id in tokens if any_of_them.search(token)]
        self.after = completing_tokens(banned, tokens)
        self.longest = max(map(len, self.after), default=0)
        self.answers: Answers | None = None

    def begin(self, answers: Answers) -> "BannedTexts":
        """Watch the rows of a new batch."""
        self.answers = answers
        return self

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        assert self.answers is not None
        self.answers.read(input_ids)
        scores[:, self.always] = -torch.inf
        for row, written in enumerate(self.answers.written):
            for length in range(1, min(self.longest, len(written)) + 1):
                if token_ids := self.after.get(written[-length:]):
                    scores[row, token_ids] = -torch.inf
        return scores


def completing_tokens(banned: Sequence[bytes], tokens: Sequence[tuple[bytes, int]]) -> dict[bytes, list[int]]:
    """What an answer ends in -> the tokens that would complete a banned text there; `tokens` are sorted."""
    after: dict[bytes, set[int]] = {}
    for text in banned:
        for cut in range(1, len(text)):
            missing = text[cut:]
            beginning = partial(_beginning, len(missing))
            first, end = (bisect(tokens, missing, key=beginning) for bisect in (bisect_left, bisect_right))
            after.setdefault(text[:cut], set()).update(id for _, id in tokens[first:end])
    return {written: sorted(token_ids) for written, token_ids in after.items() if token_ids}


def _beginning(length: int, token: tuple[bytes, int]) -> bytes:
    return token[0][:length]


class GumbelNoise(LogitsProcessor):
    """Noise after which the largest score is an exact draw from the softmax (Gumbel 1954; Maddison et al. 2014).

    The noise is a function of the seed, the row's id and the step alone: rows may be written in any batch and order. It
    comes from the device's own generator, so a GPU draws other texts than a CPU.
    """

    def __init__(self, seed: int, ids: Sequence[str], width: int, device: torch.device) -> None:
        self.seed, self.ids, self.width = seed, ids, width
        self.draws = torch.Generator(device)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        step = input_ids.shape[1] - self.width
        return scores.double() + torch.stack([self._noise(id, step, scores) for id in self.ids])

    def _noise(self, id: str, step: int, scores: Tensor) -> Tensor:
        name = f"{self.seed}:{step}:{id}".encode("utf-8", "surrogatepass")
        self.draws.manual_seed(int.from_bytes(hashlib.sha256(name).digest()[:8]))
        exponential = scores.new_empty(scores.shape[1], dtype=torch.float64).exponential_(generator=self.draws)
        return -exponential.clamp_min_(torch.finfo(torch.float64).tiny).log_()
