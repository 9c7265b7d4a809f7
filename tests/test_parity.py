"""Probabilities of 100 real rows equal two independent readings: plain full logits, and lm-evaluation-harness.

So do the answers to 200 real quiz questions, as the harness itself scores multiple choice.

The prompts hold 400 tokens: both forms then have rows that are cut and rows that are whole, with padding beside them
(at 256 every row of the conversation form is cut), and the three readings still take seconds on two cores.
"""

import copy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from nexttoken.engine.heads import Candidates, LabelSoftmax
from nexttoken.engine.label_answerer import LabelAnswerer
from nexttoken.prompts.encode_candidates import CandidateEncoder
from nexttoken.prompts.encode_labels import Encoded, Encoder
from nexttoken.prompts.encoded import NO_LABELS
from nexttoken.prompts.prompt import Prompt
from nexttoken.tasks.preference import Preference
from nexttoken.tasks.quiz import Quiz
from nexttoken.types import OPTIONS, Example

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


QUIZ = Prompt(**{k: v for k, v in vars(shipped("quiz")).items() if k != "labels"}, labels=list("01234"))
QUIZ_PROMPTS = {"digits": QUIZ, "letters": replace(QUIZ, labels=list("ABCDE"))}
CONTEXT = 512  # tokens of stories260k, which spells Japanese byte by byte: longer questions are left out, not cut
FIVE_OPTIONS, FOUR_OPTIONS = 110, 90  # questions: JCommonsenseQA's, and JMMLU's, in a task of five classes


@pytest.fixture(scope="module")
def quiz_rows(shared_dir) -> tuple[list[Example], list[Example]]:
    """Every 10th question of JCommonsenseQA's validation part, and every 17th of all JMMLU subjects."""
    data = shared_dir / "data"
    five = Quiz("jcommonsenseqa", data / "jcommonsenseqa", train_files=["valid-v1.3.json"], num_options=5)
    four = Quiz("jmmlu", data / "jmmlu", train_files=["*.csv"], num_options=4, skip_faulty=True)
    return five.read("train")[::10], four.read("train")[::17]


@pytest.fixture(scope="module")
def neox(scratch):
    """A random GPT-NeoX, whose probabilities are far from uniform, on the scratch tokenizer."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    torch.manual_seed(2)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = GPTNeoXConfig(
        vocab_size=len(scratch.tokenizer), max_position_embeddings=CONTEXT, initializer_range=0.3, **sizes
    )
    return replace(scratch, model=GPTNeoXForCausalLM(config).eval())


def fitting(encoder: Encoder, examples: list[Example], number: int) -> list[Example]:
    """The first `number` examples that need no cutting, from all over the list."""
    whole = [e for e, p in zip(examples, encoder.encode(examples).prompts, strict=True) if not p.was_cut]
    print(f"{len(examples) - len(whole)} of {len(examples)} questions are longer than {CONTEXT} tokens")
    assert len(whole) >= number
    return [whole[place] for place in np.linspace(0, len(whole) - 1, number).astype(int)]


def ask_harness(pair, examples: list[Example], encoded: Encoded) -> tuple[float, list[list[float]]]:
    """The harness's own accuracy of a multiple-choice task, and the log-likelihoods of each question's options."""
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    labels = encoded.labels.labels
    rows = [
        {"text": prompt.text, "choices": list(labels[: example.num_options]), "gold": example.label}
        for prompt, example in zip(encoded.prompts, examples, strict=True)
    ]
    task = ConfigurableTask(
        config={
            "task": "quiz",
            "custom_dataset": lambda **_: {"test": Dataset.from_list(rows)},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": lambda row: row["text"],
            "doc_to_choice": lambda row: row["choices"],
            "doc_to_target": lambda row: row["gold"],
            "target_delimiter": "",
            "metric_list": [{"metric": "acc"}],
        }
    )
    lm = HFLM(
        pretrained=pair.model,
        tokenizer=copy.deepcopy(pair.tokenizer),
        batch_size=8,
        max_length=CONTEXT,
        add_bos_token=True,
    )
    results = evaluate(lm, {"quiz": task}, bootstrap_iters=0, log_samples=True)
    samples = sorted(results["samples"]["quiz"], key=lambda sample: sample["doc_id"])
    return results["results"]["quiz"]["acc,none"], [[score for score, _ in s["filtered_resps"]] for s in samples]


@pytest.mark.parametrize("labels", QUIZ_PROMPTS)
@pytest.mark.parametrize("name", ["stories", "neox"])
def test_quiz_answers_equal_those_of_lm_evaluation_harness(request, name, labels, quiz_rows):
    """Rows of four options are among those of five: the harness is given four, and the fifth has probability 0."""
    pair = request.getfixturevalue(name)
    encoder = Encoder(pair.tokenizer, QUIZ_PROMPTS[labels], CONTEXT)
    pick = partial(fitting, encoder)
    examples = pick(quiz_rows[0], FIVE_OPTIONS) + pick(quiz_rows[1], FOUR_OPTIONS)
    assert len({example.id for example in examples}) == 200
    encoded = encoder.encode(examples)
    probs = LabelAnswerer(pair.model, LabelSoftmax(), encoder, encoded.labels, 4096)(examples).probs
    accuracy, log_likelihoods = ask_harness(pair, examples, encoded)

    truth = np.array([example.label for example in examples])
    assert (probs.argmax(axis=1) == truth).mean() == accuracy
    assert probs.argmax(axis=1).tolist() == [int(np.argmax(scores)) for scores in log_likelihoods]
    assert [len(scores) for scores in log_likelihoods] == [5] * FIVE_OPTIONS + [4] * FOUR_OPTIONS
    assert not probs[FIVE_OPTIONS:, 4].any(), "absent options"
    theirs = [softmax([scores])[0] for scores in log_likelihoods]
    largest = max(np.abs(own[: len(row)] - row).max() for own, row in zip(probs, theirs, strict=True))
    print(f"{name}, {labels}: accuracy {accuracy}, largest difference of a probability {largest:.1e}")
    assert largest < TOLERANCE
    assert probs.std(axis=0).max() > 0.01, "the rows differ"
    assert name == "stories" or len(set(probs.argmax(axis=1))) > 2, "so do the answers"


@torch.inference_mode()
@pytest.mark.parametrize("packs", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("name", ["stories", "neox"])
def test_candidates_have_the_log_likelihoods_of_lm_evaluation_harness(request, name, packs, quiz_rows):
    """Options are scored by their own texts, as the harness scores multiple choice without a list of the options."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    pair, head = request.getfixturevalue(name), Candidates("text")
    encoder = CandidateEncoder(pair.tokenizer, Prompt("Question: {{ question[0] }}\n", "Answer:"), CONTEXT)
    spaced = [
        replace(one, fields={**one.fields, OPTIONS: tuple(f" {option}" for option in one.fields[OPTIONS])})
        for one in quiz_rows[0][:40]
    ]
    prompts = encoder.encode(fitting(encoder, spaced, 20)).prompts
    options = {example.id: example.fields[OPTIONS] for example in spaced}
    requests = [
        Instance("loglikelihood", {}, (prompt.text, option), 0) for prompt in prompts for option in options[prompt.id]
    ]
    tokenizer = copy.deepcopy(pair.tokenizer)
    harness = HFLM(pretrained=pair.model, tokenizer=tokenizer, batch_size=8, max_length=CONTEXT, add_bos_token=True)
    theirs = np.reshape([score for score, _ in harness.loglikelihood(requests, disable_tqdm=True)], (20, 5))
    ours = head.scores(pair.model, head.collate(prompts, NO_LABELS, packs), NO_LABELS).numpy()
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE, rtol=1e-6)
    assert ours.std(axis=1).min() > 0.1, "the options differ"
