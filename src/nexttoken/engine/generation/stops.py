"""Where an answer ends: at an end token, at a stop text, or at its longest length."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import StoppingCriteria

from nexttoken.engine.generation.vocabulary import Answers, Vocabulary, text_of


class StopTexts(StoppingCriteria):
    """Ends a row whose answer holds a stop text; what the prompt ends in is no part of the answer."""

    def __init__(self, stops: Sequence[bytes], answers: Answers) -> None:
        self.stops, self.answers = stops, answers

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        self.answers.read(input_ids)
        rows = zip(self.answers.written, self.answers.num_last, strict=True)
        done = [any(stop in written[-(num_new + len(stop) - 1) :] for stop in self.stops) for written, num_new in rows]
        return torch.tensor(done, device=input_ids.device)


@dataclass(frozen=True, slots=True)
class Ended:
    """An answer that has come to its end: see `Written`; `num_steps` of the model were read for it."""

    text: str
    num_tokens: int
    finished: bool
    num_steps: int


def ended(token_ids: Sequence[int], vocabulary: Vocabulary, stop_ids: Collection[int], stops: Sequence[bytes]) -> Ended:
    """Cut a row's new `token_ids` at the first end token, or at the token that completes a stop text.

    White space around the text is cut off: a model that has learnt "cue, space, answer" writes it, a reader does not
    want it. A last character that is not whole is left out.
    """
    written = b""
    for num_tokens, id in enumerate(token_ids):
        if id in stop_ids:
            return Ended(text_of(written).strip(), num_tokens, True, num_tokens + 1)
        written += vocabulary.join([id])
        if found := [place for stop in stops if (place := written.find(stop)) >= 0]:
            return Ended(text_of(written[: min(found)]).strip(), num_tokens + 1, True, num_tokens + 1)
    return Ended(text_of(written).strip(), len(token_ids), False, len(token_ids))
