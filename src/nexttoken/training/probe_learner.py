"""Training of a probe: read the states of all rows, choose the regression's strength on the dev rows, fit, save."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import seed_everything

from nexttoken.engine.memory_plan.auto_tokens import with_batch_tokens
from nexttoken.engine.probe import FittedProbe, Probe, Rows
from nexttoken.engine.probe_answerer import ProbeAnswerer
from nexttoken.errors import UserError
from nexttoken.metrics.probabilities import log_loss
from nexttoken.models.base_model import identify
from nexttoken.models.fold_weights import without_training
from nexttoken.models.load import load_model, load_tokenizer, resolve, within_context
from nexttoken.models.memory import advice_on_memory
from nexttoken.models.precision import AUTOCAST, compute_in
from nexttoken.models.quantized import move_model, num_weights
from nexttoken.models.saved import save_trained
from nexttoken.prompts.prompt import Prompt
from nexttoken.settings import Settings
from nexttoken.training.dev_metric import LOG_LOSS, DevMetric, DevScore
from nexttoken.types import Example


@dataclass(frozen=True)
class ProbeLearner:
    """A frozen model with the examples to fit a probe on; nothing is written yet."""

    settings: Settings
    head: Probe
    answerer: ProbeAnswerer
    train: Sequence[Example]
    dev: Sequence[Example]
    whole: Sequence[Example]  # train and dev rows, for a second fit with the chosen strength

    @classmethod
    def load(
        cls,
        settings: Settings,
        head: Probe,
        prompt: Prompt,
        train: Sequence[Example],
        dev: Sequence[Example],
        fold_dir: Path | None = None,
        whole: Sequence[Example] = (),
    ) -> "ProbeLearner":
        """Load the model as for a prediction: its weights are not trained."""
        seed_everything(settings.seed, verbose=False)
        tokenizer = load_tokenizer(settings.model, ())
        spec = with_batch_tokens(resolve(without_training(settings)))
        print(f"{'device':<9} {spec}")
        settings = spec.settings
        encoder = head.encoder(tokenizer, prompt, within_context(spec.config, settings.max_tokens))
        if encoder.max_tokens > (context := spec.context or encoder.max_tokens):
            raise UserError(
                f"head.context_tokens + head.answer_tokens = {encoder.max_tokens}, and the model's context is {context}"
                " tokens; lower head.answer_tokens"
            )
        weights = (spec.dtype, settings.quantization, None, spec.config, spec.device)
        with advice_on_memory(settings.batch_tokens):
            model = load_model(settings.model, tokenizer, settings.max_tokens, *weights)
            compute_in(model, AUTOCAST[spec.precision])
            model = move_model(model, spec.device).eval()
        made_by = identify(settings.model, tokenizer).weights
        answerer = ProbeAnswerer(model, head, encoder, settings.batch_tokens, made_by)
        rows = (_in_one_order(some) if head.swap else some for some in (train, whole))
        return cls(settings, head, answerer, next(rows), dev, next(rows))

    def learn(
        self,
        folder: Path,
        loggers: list,
        after_choice: Callable[[ProbeAnswerer], None] = lambda _: None,
        dev_metric: DevMetric = LOG_LOSS,
        budget: None = None,
    ) -> tuple[ProbeAnswerer, dict[str, Any]]:
        """Choose the strength on the dev rows, fit on all rows, save; return the answerer and measurements."""
        start, answerer = time.monotonic(), self.answerer
        numbers = (len(self.train), len(self.dev), len(self.whole))
        all_rows = answerer.rows([*self.train, *self.dev, *self.whole])  # each text is read once
        ends = np.cumsum((0, *numbers)).tolist()
        train, dev, whole = (all_rows.chosen(slice(*ends[part : part + 2])) for part in range(3))
        measured = self._choose(train, dev, dev_metric)
        after_choice(answerer)
        if self.whole:
            answerer.probe = self._fit(self.whole, whole, measured["strength"])
        save_trained(folder, self.settings, answerer.model, answerer.encoder.tokenizer)
        answerer.probe.save(folder)
        seconds, number = time.monotonic() - start, len(self.whole or self.train)
        return answerer, measured | {
            "num_parameters": sum(map(num_weights, answerer.model.parameters())),
            "num_trainable": answerer.probe.num_weights,
            "num_train_rows": number,
            "train_seconds": seconds,
            "train_rows_per_second": number / seconds,
        }

    def _choose(self, train: Rows, dev: Rows, dev_metric: DevMetric) -> dict[str, Any]:
        """Fit with the strength that is best on the dev rows, or the middle one; return it with the dev scores."""
        strengths = self.head.strengths
        if not self.dev:
            strength = strengths[len(strengths) // 2]
            self.answerer.probe = self._fit(self.train, train, strength)
            return {"strength": strength}
        best, chosen = DevScore(), strengths[0]
        for strength in strengths:
            probe = self._fit(self.train, train, strength)
            score = self._score(dev_metric, probe.predict(dev, [example.num_options for example in self.dev]))
            if strength == strengths[0] or dev_metric.is_better(score, best):
                self.answerer.probe, best, chosen = probe, score, strength
        return {"strength": chosen, **dev_metric.measured(best)}

    def _score(self, dev_metric: DevMetric, probs: np.ndarray) -> DevScore:
        """The scores of the dev rows with a label by their probabilities (N, K)."""
        known = [(place, one.id, one.label) for place, one in enumerate(self.dev) if one.label is not None]
        with np.errstate(divide="ignore"):  # absent options have the probability 0
            rows = [(name, label, np.log(probs[place])) for place, name, label in known]
        loss = log_loss(probs[[place for place, _, _ in known]], np.array([label for _, _, label in known]))
        return dev_metric.score(loss, rows)

    def _fit(self, examples: Sequence[Example], rows: Rows, strength: float) -> FittedProbe:
        return FittedProbe.fit(self.head, rows, self.head.targets(examples), strength)


def _in_one_order(pairs: Sequence[Example]) -> list[Example]:
    """Each pair once: a probe makes both orders itself, whether or not the training transforms did."""
    firsts: dict[tuple[str, str], Example] = {}
    for pair in pairs:
        firsts.setdefault((pair.tags.get("file", ""), pair.id), pair)
    return list(firsts.values())
