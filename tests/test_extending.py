"""A new competition with its own metric, and a new way of inference: one file each, and nothing else is edited."""

import json
import sys

import numpy as np
import pytest
from omegaconf import open_dict

import nexttoken.inference
import nexttoken.tasks
from nexttoken import load_run, pipeline
from nexttoken.errors import UserError
from nexttoken.transforms.orders import swap_sides
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

    def baselines(self):
        return [Prior()]

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


PAIRS = '''
from dataclasses import dataclass, replace
from typing import ClassVar

from nexttoken.tasks.parity import Parity
from nexttoken.types import Swap


@dataclass(frozen=True)
class Pairs(Parity):
    """Whether the left or the right number is larger, or both are equal where `classes` has a tie."""

    offers: ClassVar[frozenset[str]] = frozenset({"labels", "pairs"})
    classes: ClassVar[tuple[str, ...]] = CLASSES
    SWAP

    def read(self, split):
        names = [name for name in self.classes if name != "tie"]
        return [self._pair(one, names, split) for one in super().read(split)]

    def _pair(self, one, names, split):
        first, second = int(one.id) % 10, int(one.id) * 7 % 10
        winner = "tie" if first == second and "tie" in self.classes else names[first < second]
        fields = {"LEFT": (str(first),), "RIGHT": (str(second),)}
        return replace(one, fields=fields, label=self.classes.index(winner) if split == "train" else None)

    def group_text(self, example):
        return " ".join(text for (text,) in example.fields.values()) + " " + example.id
'''


def pairs_of(parity, tmp_path, classes, swap, sides=("number_a", "number_b")):
    """The configuration of a competition of pairs whose class says `swap`, with both orders in training and asking."""
    text = PAIRS.replace("CLASSES", repr(classes)).replace("SWAP", swap)
    text = text.replace("LEFT", sides[0]).replace("RIGHT", sides[1])
    (tmp_path / "parity" / "pairs.py").write_text(text, encoding="utf-8")
    sys.modules.pop("nexttoken.tasks.pairs", None)
    with open_dict(parity):
        parity.task = {"_target_": "nexttoken.tasks.pairs.Pairs", "input_dir": str(tmp_path), "name": "pairs"}
        user = f"{{{{ {sides[0]}[0] }}}} or {{{{ {sides[1]}[0] }}}}\n"
        parity.prompt = {**PROMPT, "user": user, "labels": list(classes)}
        parity.inference = {"_target_": "nexttoken.inference.SwapAveraged"}
        parity.train_transforms = {"both": {"_target_": "nexttoken.transforms.orders.BothOrders"}}
    return parity


@pytest.mark.parametrize(
    ("classes", "swap", "sides"),
    [
        (("A", "B"), "swap = Swap((1, 0))", ("number_a", "number_b")),
        (("tie", "A", "B"), "swap = Swap((0, 2, 1))", ("number_a", "number_b")),
        (("B", "tie", "A"), 'swap = Swap((2, 1, 0), ("left", "right"))', ("left", "right")),
    ],
)
def test_the_task_says_which_classes_and_fields_change_places(parity, tmp_path, classes, swap, sides):
    pipeline.train(pairs_of(parity, tmp_path, classes, swap, sides))
    run = load_run(tmp_path / "output" / "pairs" / "tiny")
    rows = run.parts.task.read("test")
    own = run.parts.inference.swap
    turned = run.answer([swap_sides(row, own) for row in rows]).probs
    np.testing.assert_allclose(run.answer(rows).probs, turned[:, list(own.classes)], atol=1e-6)
    partner = {"A": "B", "B": "A", "tie": "tie"}
    assert [classes[k] for k in own.classes] == [partner[name] for name in classes]


@pytest.mark.parametrize(
    ("swap", "expected"),
    [
        ("", "the task pairs does not say which fields and classes change places"),
        ("swap = Swap((1, 0, 2))", r"the task pairs has 2 classes and swap.classes=\(1, 0, 2\)"),
        ("swap = Swap((1, 1))", r"the task pairs has 2 classes and swap.classes=\(1, 1\)"),
    ],
)
@pytest.mark.parametrize("part", ["train_transforms", "inference", "nested inference"])
def test_a_swap_that_the_task_does_not_say_is_refused_before_anything_is_read(parity, tmp_path, swap, expected, part):
    config = pairs_of(parity, tmp_path, ("A", "B"), swap)
    with open_dict(config):
        config.task.input_dir = "is never read"
        if part != "train_transforms":
            config.train_transforms = {}
        if part == "train_transforms":
            config.inference = {"_target_": "nexttoken.inference.Once"}
        elif part == "nested inference":
            config.inference = {"_target_": "nexttoken.inference.FewShot", "ask": config.inference}
    with pytest.raises(UserError, match=expected) as refused:
        pipeline.train(config)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize("part", ["train_transforms", "inference"])
@pytest.mark.parametrize("needed", ["pairs", "options"])
def test_a_task_without_pairs_or_options_refuses_their_orders(parity, part, needed):
    transform, inference = {"pairs": ("BothOrders", "SwapAveraged"), "options": ("ShuffleOptions", "RotationAveraged")}[
        needed
    ]
    orders = {
        "train_transforms": {"orders": {"_target_": f"nexttoken.transforms.orders.{transform}"}},
        "inference": {"_target_": f"nexttoken.inference.{inference}"},
    }
    with open_dict(parity):
        parity[part] = orders[part]
        parity.task.input_dir = "is never read"
    with pytest.raises(UserError, match=f"needs {needed}, and the task's examples (are not|have no) {needed}"):
        pipeline.train(parity)
