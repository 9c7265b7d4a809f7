"""Probabilities of 100 real rows equal two independent readings: plain full logits, and lm-evaluation-harness.

The prompts hold 400 tokens: both forms then have rows that are cut and rows that are whole, with padding beside them
(at 256 every row of the conversation form is cut), and the three readings still take seconds on two cores.
"""

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from nexttoken.models.answer import LabelAnswerer
from nexttoken.models.encode import Encoded, Encoder
from nexttoken.models.heads import LabelSoftmax
from nexttoken.prompts import Prompt
from nexttoken.tasks.preference import Preference
from nexttoken.types import Example

CONF = Path(__file__).resolve().parents[1] / "conf" / "prompt"
MAX_TOKENS = 400
TOLERANCE = 1e-4


def shipped(name: str) -> Prompt:
    options = yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8"))
    return Prompt(**{key: value for key, value in options.items() if key != "_target_"})


INSTRUCTION = shipped("instruction")
PROMPTS = {
    "instruction": INSTRUCTION,
    "conversation": shipped("conversation"),
    "cue ends in a space": replace(INSTRUCTION, answer_cue="### Answer: "),
}


@pytest.fixture(scope="module")
def rows(shared_dir) -> list[Example]:
    """Every 38th row and the 50 shortest of the others, which leave long stretches of padding beside the cut ones."""
    examples = Preference(shared_dir / "data" / "arena-mini").read("train")
    spread = examples[::38][:50]
    others = [example for example in examples if example not in spread]
    return (
        spread
        + sorted(others, key=lambda example: sum(len(turn) for turns in example.fields.values() for turn in turns))[:50]
    )


@pytest.fixture(scope="module")
def decided(scratch):
    """The seeded scratch model with weights so large that its probabilities are far from uniform."""
    pair = copy.deepcopy(scratch)
    with torch.no_grad():
        for weight in pair.model.parameters():
            weight.mul_(6 if weight.ndim > 1 else 1)
    return pair


@dataclass(frozen=True)
class Case:
    model: torch.nn.Module
    encoder: Encoder
    encoded: Encoded
    probs: np.ndarray  # (100, 3) as predicted, 16,384 tokens at a time


@pytest.fixture(scope="module", params=["decided", "stories"])
def pair(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module", params=PROMPTS)
def case(request, pair, rows) -> Case:
    encoder = Encoder(pair.tokenizer, PROMPTS[request.param], MAX_TOKENS)
    encoded = encoder.encode(rows)
    probs = LabelAnswerer(pair.model, LabelSoftmax(), encoder, encoded.labels, 16_384)(rows).probs
    assert len(rows) == 100
    assert 20 < encoded.counts()["num_truncated"] < 100
    assert min(len(prompt.token_ids) for prompt in encoded.prompts) < MAX_TOKENS * 0.75, "batches have padding"
    assert probs.std(axis=0).max() > 0.01, "the rows differ"
    return Case(pair.model, encoder, encoded, probs)


def softmax(scores: list[list[float]]) -> np.ndarray:
    return torch.tensor(scores, dtype=torch.float64).softmax(dim=-1).numpy()


@torch.inference_mode()
def log_prob(model: torch.nn.Module, prompt_ids: list[int], label_ids: list[int]) -> float:
    """All logits of one prompt + label alone, nothing shared with the code under test."""
    log_probs = model(torch.tensor([prompt_ids + label_ids])).logits[0].double().log_softmax(dim=-1)
    return sum(log_probs[len(prompt_ids) - 1 + step, token].item() for step, token in enumerate(label_ids))


def test_equal_to_plain_full_logits_of_each_row_alone(case):
    scores = []
    for prompt in case.encoded.prompts:
        whole = [case.encoder.ids(prompt.text + label) for label in case.encoded.labels.labels]
        num_shared = len(prompt.token_ids)
        assert all(ids[:num_shared] == prompt.token_ids.tolist() for ids in whole)
        scores.append([log_prob(case.model, ids[:num_shared], ids[num_shared:]) for ids in whole])
    np.testing.assert_allclose(case.probs, softmax(scores), atol=TOLERANCE)


def test_equal_to_lm_evaluation_harness(case):
    """Its tokenisation is its own: it moves the cue's last spaces and line breaks into the continuation."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    harness = HFLM(
        pretrained=case.model,
        tokenizer=copy.deepcopy(case.encoder.tokenizer),  # it sets a padding token
        batch_size=16,
        max_length=512,
        add_bos_token=True,
    )
    requests = [
        Instance("loglikelihood", {}, (prompt.text, label), 0)
        for prompt in case.encoded.prompts
        for label in case.encoded.labels.labels
    ]
    log_probs = [score for score, _ in harness.loglikelihood(requests, disable_tqdm=True)]
    scores = np.reshape(log_probs, (100, 3)).tolist()
    np.testing.assert_allclose(case.probs, softmax(scores), atol=TOLERANCE)


@pytest.mark.parametrize("batch_tokens", [1, 3001])  # and 16,384, which they are compared with
def test_whatever_the_batch_size_padding_and_order(case, rows, batch_tokens):
    order = np.random.default_rng(batch_tokens).permutation(100)
    answerer = LabelAnswerer(case.model, LabelSoftmax(), case.encoder, case.encoded.labels, batch_tokens)
    shuffled = answerer([rows[index] for index in order])
    assert shuffled.ids == tuple(rows[index].id for index in order)
    np.testing.assert_allclose(shuffled.probs, case.probs[order], atol=TOLERANCE)
