"""Scores of written answers against references, row by row, so that intervals can be made of them.

chrF is sacrebleu's (Popović 2015), ROUGE is rouge-score's (Lin 2004) over tokens of our own, since its own tokenizer
throws everything but a-z and 0-9 away: nothing would be left of a Japanese text.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np

from nexttoken.errors import UserError
from nexttoken.progress import Progress
from nexttoken.types import Metric

_JAPANESE = "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # kana, kanji
_TOKEN = re.compile(rf"[^\W{_JAPANESE}]+|[{_JAPANESE}]")


class Tokens:
    """Tokens for ROUGE: words, but each kana or kanji by itself, as no spaces part Japanese words."""

    def tokenize(self, text: str) -> list[str]:
        return _TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())


def chrf(outputs: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """chrF2 of each output, (N,), 0 to 100: F-score of runs of 1 to 6 characters, recall twice as heavy."""
    from sacrebleu.metrics import CHRF

    metric = CHRF()
    return _by_row(outputs, references, lambda out, ref: metric.sentence_score(out, [ref]).score, "chrF")


def rouge_1(outputs: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """F1 of shared tokens, (N,), 0 to 1."""
    return _rouge("rouge1", outputs, references)


def rouge_2(outputs: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """F1 of shared pairs of neighbouring tokens, (N,), 0 to 1."""
    return _rouge("rouge2", outputs, references)


def rouge_l(outputs: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """F1 of the longest common subsequence of tokens, (N,), 0 to 1.

    Equal to rouge-score's, which takes seconds for two texts of some thousand characters.
    """
    return _by_row(outputs, references, _rouge_l, "ROUGE-L")


def exact_match(outputs: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """1 where output and reference are the same after NFKC and with white space as single spaces, else 0, (N,)."""
    return _by_row(outputs, references, lambda out, ref: float(_plain(out) == _plain(ref)), "exact match")


TEXT_METRICS = (
    Metric("chrf", chrf, higher_is_better=True, heading="chrF"),
    Metric("rouge_1", rouge_1, higher_is_better=True, heading="ROUGE-1"),
    Metric("rouge_2", rouge_2, higher_is_better=True, heading="ROUGE-2"),
    Metric("rouge_l", rouge_l, higher_is_better=True, heading="ROUGE-L"),
    Metric("exact_match", exact_match, higher_is_better=True),
)


def _rouge(kind: str, outputs: Sequence[str], references: Sequence[str]) -> np.ndarray:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([kind], tokenizer=Tokens())
    return _by_row(outputs, references, lambda out, ref: scorer.score(ref, out)[kind].fmeasure, kind)


def _rouge_l(output: str, reference: str) -> float:
    written, wanted = Tokens().tokenize(output), Tokens().tokenize(reference)
    common = common_subsequence(written, wanted)
    precision, recall = common / max(1, len(written)), common / max(1, len(wanted))
    return 2 * precision * recall / (precision + recall) if common else 0.0


def common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """The length of the longest common subsequence, a row of the table at once as the bits of an int (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for place, token in enumerate(first):
        places[token] = places.get(token, 0) | 1 << place
    everywhere = (1 << len(first)) - 1
    row = everywhere
    for token in second:
        matched = row & places.get(token, 0)
        row = (row + matched | row - matched) & everywhere
    return len(first) - row.bit_count()


def _by_row(
    outputs: Sequence[str], references: Sequence[str], score: Callable[[str, str], float], what: str
) -> np.ndarray:
    """Raises UserError where there are not as many references as outputs."""
    if len(outputs) != len(references):
        raise UserError(f"{len(outputs)} outputs, but {len(references)} references; give one reference per output")
    scores = np.zeros(len(outputs))
    with Progress(len(outputs), what) as progress:
        for row, (output, reference) in enumerate(zip(outputs, references, strict=True)):
            scores[row] = score(output, reference)
            progress.advance(1)
    return scores


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())
