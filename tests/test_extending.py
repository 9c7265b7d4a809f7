"""A new competition with its own metric, and a new way of inference: one file each, and nothing else is edited."""

import json

import numpy as np
import pytest
from omegaconf import OmegaConf, open_dict

import nexttoken.inference
import nexttoken.tasks
from nexttoken import load_run, pipeline
from nexttoken.errors import UserError
from support.training import TINY, composed

COMPETITION = '''
"""Even or odd: which of two words a sentence of digits calls for."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from nexttoken.metrics.probabilities import METRICS
from nexttoken.types import Example, Metric


def boldness(probs, labels):
    """The mean of the largest probability, from 1 / number of classes to 1."""
    return float(probs.max(axis=1).mean())


class Prior:
    def fit(self, examples):
        self.shares = np.bincount([example.label for example in examples], minlength=2) / len(examples)
        return self

    def predict(self, examples):
        return np.tile(self.shares, (len(examples), 1))


@dataclass(frozen=True)
class Parity:
    input_dir: str
    name: str = "parity"

    offers: ClassVar[frozenset[str]] = frozenset({"labels"})
    classes: ClassVar[tuple[str, ...]] = ("even", "odd")
    metrics: ClassVar[tuple[Metric, ...]] = (*METRICS, Metric("boldness", boldness, higher_is_better=True))
    has_published_scores: ClassVar[bool] = False
    suffix: ClassVar[str] = ".json"

    def read(self, split):
        numbers = range(60) if split == "train" else range(60, 70)
        names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
        texts = [" ".join(names[int(digit)] for digit in str(number)) for number in numbers]
        return [
            Example(str(number), {"digits": (text,)}, number % 2 if split == "train" else None)
            for number, text in zip(numbers, texts, strict=True)
        ]

    def truth(self):
        return {}

    def group_text(self, example):
        return example.fields["digits"][0]

    def baseline(self):
        return Prior()

    def results(self, predictions):
        return []

    def write(self, predictions, path):
        Path(path).write_text(json.dumps(dict(zip(predictions.ids, predictions.probs.tolist(), strict=True))))
'''

INFERENCE = '''
"""The answer to the digits read backwards, too."""

from dataclasses import dataclass, replace
from typing import ClassVar

from nexttoken.inference.once import Inference


@dataclass(frozen=True)
class Backwards(Inference):
    needs: ClassVar[frozenset[str]] = frozenset({"labels"})

    def __call__(self, examples, answer):
        turned = [replace(e, fields={"digits": (" ".join(e.fields["digits"][0].split()[::-1]),)}) for e in examples]
        forward, backward = answer(examples), answer(turned)
        return replace(forward, probs=(forward.probs + backward.probs) / 2)
'''

PROMPT = {
    "_target_": "nexttoken.prompts.Prompt",
    "user": "{{ digits[0] }}\n",
    "answer_cue": "It is ",
    "labels": ["even", "odd"],
}


@pytest.fixture
def parity(monkeypatch, tmp_path):
    """A configuration of the competition whose files are the two above, each in its room."""
    for package, name, text in (
        (nexttoken.tasks, "parity", COMPETITION),
        (nexttoken.inference, "backwards", INFERENCE),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.py").write_text(text, encoding="utf-8")
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / name)])
    config = composed("train", *TINY, f"output_dir={tmp_path / 'output'}", "train_transforms=none", "logger=none")
    with open_dict(config):
        config.task = {"_target_": "nexttoken.tasks.parity.Parity", "input_dir": str(tmp_path)}
        config.prompt = PROMPT
        config.inference = {"_target_": "nexttoken.inference.backwards.Backwards"}
    return config


def test_a_competition_a_metric_and_a_way_of_inference_are_a_file_each(parity, tmp_path, capsys):
    loss = pipeline.train(parity)
    fold = tmp_path / "output" / "parity" / "tiny" / "fold0"
    saved = json.loads((fold / "metrics.json").read_text())
    assert saved["log_loss"] == loss
    assert 0.5 <= saved["boldness"] <= 1
    assert "this fold (trained)" in capsys.readouterr().out
    places = (f"run={fold.parent}", f"submissions_dir={tmp_path / 'submissions'}")
    submission = json.loads(pipeline.predict(composed("predict", *places)).read_text())
    assert list(submission) == [str(number) for number in range(60, 70)]
    np.testing.assert_allclose(np.sum(list(submission.values()), axis=1), 1)
    assert load_run(fold.parent).parts.inference.needs == {"labels"}


def test_a_part_that_needs_what_the_new_competition_does_not_offer_is_refused(parity):
    with open_dict(parity):
        parity.inference = OmegaConf.create({"_target_": "nexttoken.inference.SwapAveraged"})
    with pytest.raises(UserError, match="SwapAveraged needs pairs"):
        pipeline.train(parity)
