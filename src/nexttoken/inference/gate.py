"""The gate decides from a first answer's confidence whether to query again; its results on held-out rows."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np

from nexttoken.errors import UserError
from nexttoken.metrics.probabilities import log_loss, log_losses
from nexttoken.metrics.scaling import soften

ABOVE = 1.01  # no probability reaches this threshold: every question is queried again


@dataclass(frozen=True)
class Gate:
    """A question is queried again where its first answer's calibrated probability, or its lead, is under a threshold.

    0 never queries again, ABOVE always does. `temperature` calibrates both answers for these comparisons only.
    With `keep_confident` the first answer stays where the second is less confident.
    """

    min_top1: float
    min_margin: float
    temperature: float = 1.0
    keep_confident: bool = True

    def __post_init__(self) -> None:
        for name in ("min_top1", "min_margin"):
            if not 0 <= (value := getattr(self, name)) < np.inf:
                raise UserError(
                    f"inference.{name}={value} is not accepted: expected 0 (never again) to {ABOVE} (always)"
                )
        if not 0 < self.temperature < np.inf:
            raise UserError(
                f"inference.temperature={self.temperature} is not accepted: expected a number above 0, 1 for none"
            )

    def confidence(self, probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Calibrated top-1 probability and its lead over the second, (N,) each, from (N, K) probabilities."""
        ordered = np.sort(np.minimum(soften(probs, self.temperature), 1.0), axis=1)
        return ordered[:, -1], ordered[:, -1] - (ordered[:, -2] if ordered.shape[1] > 1 else 0.0)

    def unsure(self, probs: np.ndarray) -> np.ndarray:
        """Mask (N,) of the rows to query again."""
        top1, margin = self.confidence(probs)
        return (top1 < self.min_top1) | (margin < self.min_margin)

    def choose(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Mask (N,) of the rows whose second answer is better, (N, K) probabilities each."""
        if not self.keep_confident:
            return np.ones(len(first), dtype=bool)
        return self.confidence(second)[0] >= self.confidence(first)[0]


@dataclass(frozen=True)
class Trial:
    """Held-out rows answered both ways, N rows.

    `first` and `second` are (N, K) probabilities: without and with passages, or of one order and both orders averaged.
    `found` (N,) is True where passages were found (elsewhere `second` is not used). `*_seconds` are (N,) of each row's
    share, `*_tokens` (N,) those that went through the model.
    """

    ids: tuple[str, ...]
    folds: np.ndarray
    groups: np.ndarray
    labels: np.ndarray
    first: np.ndarray
    second: np.ndarray
    found: np.ndarray
    first_seconds: np.ndarray
    search_seconds: np.ndarray
    second_seconds: np.ndarray
    first_tokens: np.ndarray
    second_tokens: np.ndarray
    by_loss: bool = False  # thresholds are chosen by log loss instead of accuracy

    def pick(self, mask: np.ndarray) -> "Trial":
        """The rows of a mask (N,)."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        arrays = {name: value[mask] for name, value in values.items() if isinstance(value, np.ndarray)}
        return replace(self, ids=tuple(np.array(self.ids, dtype=object)[mask]), **arrays)

    @property
    def gains(self) -> np.ndarray:
        """Gain of taking the second answer, (N,): 1 corrects a row and -1 spoils it, or nats of log loss."""
        if self.by_loss:
            return log_losses(self.first, self.labels) - log_losses(self.second, self.labels)
        right = [(probs.argmax(axis=1) == self.labels).astype(np.int64) for probs in (self.first, self.second)]
        return right[1] - right[0]


@dataclass(frozen=True)
class Decision:
    """Masks (N,) of the rows to query again, and of those whose second answer was taken."""

    searched: np.ndarray
    taken: np.ndarray


@dataclass(frozen=True)
class Outcome:
    """Results of a policy: means over the rows."""

    accuracy: float
    log_loss: float
    share_searched: float
    seconds: float  # per row: first answer, search, second answer where passages were found
    tokens: float  # per row, of both answers


def decide(trial: Trial, gate: Gate) -> Decision:
    searched = gate.unsure(trial.first)
    return Decision(searched, searched & trial.found & gate.choose(trial.first, trial.second))


def decide_by_part(trial: Trial, parts: np.ndarray, gates: Mapping[int, Gate]) -> Decision:
    """Each part's rows decided by the part's gate; `parts` is (N,)."""
    searched, taken = np.zeros((2, len(parts)), dtype=bool)
    for part, gate in gates.items():
        rows = parts == part
        decision = decide(trial.pick(rows), gate)
        searched[rows], taken[rows] = decision.searched, decision.taken
    return Decision(searched, taken)


def score(trial: Trial, decision: Decision) -> Outcome:
    probs = np.where(decision.taken[:, None], trial.second, trial.first)
    extra = trial.search_seconds + trial.found * trial.second_seconds
    return Outcome(
        float((probs.argmax(axis=1) == trial.labels).mean()),
        log_loss(probs, trial.labels),
        float(decision.searched.mean()),
        float((trial.first_seconds + decision.searched * extra).mean()),
        float((trial.first_tokens + decision.searched * trial.found * trial.second_tokens).mean()),
    )


def difference(trial: Trial, one: Decision, other: Decision) -> tuple[float, float]:
    """The gain of `one` over `other` on the same rows, and the standard error of that paired difference."""
    return paired(trial.gains * (one.taken.astype(np.int64) - other.taken))


def at_random(trial: Trial, gate: Gate, share: float) -> Outcome:
    """The expected outcome when a random share of the rows is searched: a gate has to be better.

    Every mean is linear in the share, so this interpolates between never and always searching.
    """
    ends = [score(trial, decide(trial, replace(gate, min_top1=limit, min_margin=0.0))) for limit in (0.0, ABOVE)]
    never, always = ([getattr(end, field.name) for field in fields(Outcome)] for end in ends)
    return Outcome(*((1 - share) * low + share * high for low, high in zip(never, always, strict=True)))


def paired(differences: np.ndarray) -> tuple[float, float]:
    """Mean of (N,) differences and its standard error."""
    num_rows = len(differences)
    return float(differences.mean()), float(differences.std(ddof=1) / num_rows**0.5) if num_rows > 1 else 0.0
