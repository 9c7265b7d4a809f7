"""Open answers: texts, scored by what known ones cost the model, and written by one fold's model."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nexttoken.errors import UserError, first_five
from nexttoken.models.processes import num_ranks
from nexttoken.runs.answer_set import Run
from nexttoken.runs.folder import FoldFolder
from nexttoken.settings import Settings
from nexttoken.tasks.baselines.characters import CharacterModel
from nexttoken.types import DIALOGUE, AnswerLosses, Example, OpenTask, TextPredictions


class Texts:
    """The answer set of an `OpenTask`."""

    def strata(self, examples: Sequence[Example]) -> np.ndarray:
        return np.zeros(len(examples), dtype=np.int64)

    def describe(self, settings: Settings, task: OpenTask, num_rows: int, num_held_out: int) -> dict[str, Any]:
        return {
            "answers": "texts",
            "task": task.name,
            "dataset": Path(settings.input_dir).resolve().name,
            "fold": settings.fold,
            "trained": settings.trainer.max_epochs > 0,
            "num_held_out": num_held_out,
        }

    def references(self, task: OpenTask, seen: Sequence[Example], held_out: Sequence[Example]) -> dict[str, Any]:
        """Nats per character of the held-out answers: characters that are equally probable, and n-grams of them.

        Raises UserError where a row has no answer to learn from or to be scored by.
        """
        if missing := [example.id for example in (*seen, *held_out) if example.answer is None]:
            raise UserError(f"{len(missing)} training rows have no answer ({first_five(missing)}); give answers")
        characters = CharacterModel.fit([answer for example in seen for answer in _answers(example)])
        answers = [answer for example in held_out for answer in _answers(example)]
        return {
            "uniform_nll_per_character": math.log(characters.num_symbols),
            "baseline_nll_per_character": characters.nll_per_character(answers),
        }

    def score(self, task: OpenTask, predictions: AnswerLosses, examples: Sequence[Example]) -> dict[str, float]:
        """`log_loss` is the mean loss of a token of the answers, their ends among them."""
        nll, num_tokens = float(predictions.nll.sum()), int(predictions.num_tokens.sum())
        num_characters = int(predictions.num_characters.sum())
        return {
            "num_examples": len(predictions.ids),
            "log_loss": nll / num_tokens,
            "perplexity": math.exp(min(nll / num_tokens, 700.0)),
            "nll_per_character": nll / max(num_characters, 1),
            "num_answer_tokens": num_tokens,
            "num_answer_characters": num_characters,
        }

    def save(
        self, fold: FoldFolder, number: int, task: OpenTask, predictions: AnswerLosses, examples: Sequence[Example]
    ) -> None:
        fold.save_losses(predictions, examples, number)

    def answer(self, run: Run, examples: list[Example]) -> TextPredictions:
        """Texts have no mean: one fold's model writes them. Raises UserError for several processes."""
        if num_ranks() > 1:
            raise UserError("open answers are written by one process; use devices=1, and one command per GPU")
        fold = run.writing_fold
        print(f"written by {fold.path}; texts have no mean over folds, fold=... chooses another")
        return run.generate(fold, [replace(example, answer=None) for example in examples])  # a reference is not shown

    def finish(self, run: Run, task: OpenTask, predictions: TextPredictions) -> None:
        finished, num_tokens = predictions.columns["finished"], predictions.columns["num_tokens"]
        print(f"{int(num_tokens.sum()):,} tokens, {num_tokens.mean():.1f} an answer")
        if cut := [row for row, whole in zip(predictions.ids, finished, strict=True) if not whole]:
            print(
                f"{len(cut)} of {len(finished)} answers were stopped at their longest length ({first_five(cut)});"
                " generation.max_new_tokens=... makes it longer"
            )


def _answers(example: Example) -> list[str]:
    """Every utterance of a dialogue's assistant, or the one answer of an instruction."""
    return [*example.fields.get(DIALOGUE, ())[1::2], example.answer or ""]
