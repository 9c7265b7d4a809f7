"""What others published for "LMSYS - Chatbot Arena Human Preference Predictions", so that a run can stand beside it."""

from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["zero-shot CV", "CV", "public LB", "private LB"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class PublishedScore:
    """A self-reported three-class log loss.

    The public and the private leaderboard are different test sets, hence `kind`. `comparable` says whether the score
    may stand beside an out-of-fold log loss on the competition's own training data; on other data none may.
    """

    who: str
    what: str
    score: float
    kind: Kind
    comparable: bool


def _score(who: str, what: str, score: float, kind: Kind) -> PublishedScore:
    return PublishedScore(who, what, score, kind, comparable=kind in ("zero-shot CV", "CV"))


PUBLISHED = (
    # Kaggle thread "Prediction Using Generation Header"
    _score("Takamichi Toda", "Llama-3-8B, zero-shot", 1.234, "zero-shot CV"),
    _score("Takamichi Toda", "Llama-3-8B, SFT", 1.037, "CV"),
    _score("James Day", "Llama-3-8B, QLoRA", 0.902, "CV"),
    _score("tascj (2nd)", "Gemma-2-9B, stage 1", 0.891, "CV"),
    _score("tascj (2nd)", "Gemma-2-9B + 8B", 0.876, "CV"),
    _score("BlackPearl (1st)", "70B teachers", 0.875, "CV"),
    _score("BlackPearl (1st)", "Gemma-2-9B, distilled", 0.8672, "CV"),
    _score("ShelterW", "Llama-3-8B, QLoRA", 0.935, "public LB"),
    _score("median", "final standing", 1.052, "private LB"),
    _score("bronze", "final standing", 1.003, "private LB"),
    _score("silver", "final standing", 0.993, "private LB"),
    _score("James Day", "Gemma-2-9B, QLoRA", 0.990, "CV"),
    _score("gold", "final standing", 0.984, "private LB"),
    _score("BlackPearl (1st)", "Gemma-2-9B, distilled", 0.96898, "private LB"),
)


def predicted_leaderboard(cv: float) -> float:
    """The public leaderboard score that James Day's line predicts for a CV log loss on the competition's data."""
    return 0.890 * cv + 0.125
