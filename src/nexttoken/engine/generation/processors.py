"""Logits processors and stopping criteria: detection of NaN, banned texts, stop texts, draws independent of batches."""

import hashlib
import re
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LogitsProcessor, StoppingCriteria

from nexttoken.engine.generation.vocabulary import GeneratedBytes, Vocabulary, decode_bytes


class FirstNonFinite(LogitsProcessor):
    """Records in `first` (N,) each row's first step whose scores are not finite, without changing scores."""

    def __init__(self, num_rows: int, width: int, device: torch.device) -> None:
        self.width, self.first = width, torch.full((num_rows,), torch.iinfo(torch.int64).max, device=device)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        bad = ~scores.amax(dim=-1).isfinite()  # NaN and infinity survive the maximum; single -inf may be intended
        self.first = torch.where(bad, self.first.clamp_max(input_ids.shape[1] - self.width), self.first)
        return scores


class BannedTexts(LogitsProcessor):
    """Sets the score of every token that would complete a banned text to minus infinity, in any tokenization.

    transformers' `bad_words_ids` bans one tokenization of a text only. Here a token is banned if its bytes contain the
    text or begin with all of the text that is still missing. End tokens are never banned.
    """

    def __init__(self, banned: Sequence[bytes], vocabulary: Vocabulary, stop_ids: Collection[int]) -> None:
        allowed = {*stop_ids}
        tokens = sorted((token, id) for id, token in enumerate(vocabulary.tokens) if token and id not in allowed)
        any_of_them = re.compile(b"|".join(map(re.escape, banned)))
        self.always = [id for token, id in tokens if any_of_them.search(token)]
        self.after = completing_tokens(banned, tokens)
        self.longest = max(map(len, self.after), default=0)
        self.generated: GeneratedBytes | None = None

    def begin(self, generated: GeneratedBytes) -> "BannedTexts":
        """Start a new batch."""
        self.generated = generated
        return self

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        assert self.generated is not None
        self.generated.update(input_ids)
        scores[:, self.always] = -torch.inf
        for row, written in enumerate(self.generated.written):
            for length in range(1, min(self.longest, len(written)) + 1):
                if token_ids := self.after.get(written[-length:]):
                    scores[row, token_ids] = -torch.inf
        return scores


def completing_tokens(banned: Sequence[bytes], tokens: Sequence[tuple[bytes, int]]) -> dict[bytes, list[int]]:
    """The ids of the tokens that complete a banned text, by the end of the answer before them; `tokens` are sorted."""
    after: dict[bytes, set[int]] = {}
    for text in banned:
        for cut in range(1, len(text)):
            missing = text[cut:]
            first = bisect_left(tokens, missing, key=lambda token: token[0][: len(missing)])
            end = bisect_right(tokens, missing, key=lambda token: token[0][: len(missing)])
            after.setdefault(text[:cut], set()).update(id for _, id in tokens[first:end])
    return {written: sorted(token_ids) for written, token_ids in after.items() if token_ids}


class GumbelNoise(LogitsProcessor):
    """Adds noise after which the largest score is an exact draw from the softmax (Gumbel 1954; Maddison et al. 2014).

    The noise depends on the seed, the prompt's id and the step only, so batches and their order do not matter. It comes
    from the device's generator: a GPU draws other texts than a CPU.
    """

    def __init__(self, seed: int, ids: Sequence[str], width: int, device: torch.device) -> None:
        self.seed, self.ids, self.width = seed, ids, width
        self.draws = torch.Generator(device)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        step, drawn = input_ids.shape[1] - self.width, scores.new_empty(scores.shape, dtype=torch.float64)
        for row, id in zip(drawn, self.ids, strict=True):
            name = f"{self.seed}:{step}:{id}".encode("utf-8", "surrogatepass")
            self.draws.manual_seed(int.from_bytes(hashlib.sha256(name).digest()[:8]))
            row.exponential_(generator=self.draws)
        return scores.double() - drawn.clamp_min_(torch.finfo(torch.float64).tiny).log_()


class StopTexts(StoppingCriteria):
    """Ends an answer as soon as it contains a stop text; the prompt is not searched."""

    def __init__(self, stops: Sequence[bytes], generated: GeneratedBytes) -> None:
        self.stops, self.generated = stops, generated

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        self.generated.update(input_ids)
        rows = zip(self.generated.written, self.generated.num_last, strict=True)
        done = [any(stop in written[-(num_new + len(stop) - 1) :] for stop in self.stops) for written, num_new in rows]
        return torch.tensor(done, device=input_ids.device)


@dataclass(frozen=True, slots=True)
class Ending:
    """A finished answer, with the fields of GeneratedText; the model ran `num_steps` times for it."""

    text: str
    num_tokens: int
    finished: bool
    num_steps: int


def find_end(
    token_ids: Sequence[int], vocabulary: Vocabulary, stop_ids: Collection[int], stops: Sequence[bytes]
) -> Ending:
    """Cut an answer at the first end token or at the token that completes a stop text, and strip white space."""
    written = b""
    for step, id in enumerate(token_ids, start=1):
        if id in stop_ids:
            return Ending(decode_bytes(written).strip(), step - 1, True, step)
        written += vocabulary.join([id])
        if places := [place for stop in stops if (place := written.find(stop)) >= 0]:
            return Ending(decode_bytes(written[: min(places)]).strip(), step, True, step)
    return Ending(decode_bytes(written).strip(), len(token_ids), False, len(token_ids))
