"""Rows that are asked again go on from what was read of them: the same probabilities, fewer tokens."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers

from nexttoken.engine.forward.prefixes import PrefixCache
from nexttoken.engine.forward.shortcuts import shortcuts
from nexttoken.engine.heads import Classification, LabelSoftmax
from nexttoken.engine.label_answerer import predict_labels
from nexttoken.inference import ConfidenceGated
from nexttoken.inference.retrieval.search import Found
from nexttoken.prompts.encode_labels import EncodedPrompt
from nexttoken.prompts.label_tokens import LabelTokens
from nexttoken.types import Example, LabelPredictions
from support import small_models

SMALL = small_models.SMALL | {"max_position_embeddings": 256}
GPT2 = {"vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "initializer_range": 0.25}
ARCHITECTURES = {"Llama": SMALL, "Gemma2": SMALL | {"sliding_window": 40}, "Qwen3": SMALL, "GPT2": GPT2}
LABELS = {
    "one token": LabelTokens(("A", "B"), ((5,), (7,)), (("A",), ("B",)), 0),
    "several": LabelTokens(("A", "B", "C"), ((5, 6), (7,), (9, 8, 4)), (("A",), ("B",), ("C",)), 0),
}
BATCH_TOKENS = 300


def build(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**ARCHITECTURES[name])
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def drawn(length: int) -> list[int]:
    return np.random.default_rng(length).integers(10, 97, length).tolist()


def prompts(rows: list[list[int]]) -> list[EncodedPrompt]:
    return [EncodedPrompt(f"q{n}", None, "", np.array(row, np.int32), False) for n, row in enumerate(rows)]


START = drawn(34)  # an instruction that all of them share
FIRST = prompts([START + drawn(size) for size in (21, 9, 30, 44, 17, 38)])
AGAIN = prompts(
    [
        FIRST[0].token_ids.tolist() + drawn(60),
        FIRST[1].token_ids.tolist()[:-2] + drawn(70),  # goes on otherwise two tokens before the end
        START[:30] + drawn(80),  # has too little in common
        FIRST[3].token_ids.tolist(),  # nothing new
        FIRST[4].token_ids.tolist() + drawn(25),
        FIRST[5].token_ids.tolist() + drawn(150),
        START + drawn(50),  # of an id that was not asked before
    ]
)


def counted(model: torch.nn.Module) -> list[int]:
    """Tokens that go through the model from now on, call by call; copies of its modules count as well."""
    calls: list[int] = []
    model.get_input_embeddings().register_forward_pre_hook(lambda _, inputs: calls.append(inputs[0].numel()))
    return calls


def alone(model, head, labels) -> np.ndarray:
    rows = [predict_labels(model, head, [one], labels, BATCH_TOKENS).probs for one in AGAIN]
    return np.concatenate(rows)


def every(probs: np.ndarray) -> np.ndarray:
    return np.ones(len(probs), dtype=bool)


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_probabilities_are_those_of_each_prompt_alone(name, labels):
    model = build(name)
    expected, cache = alone(model, LabelSoftmax(), labels), PrefixCache(every)
    predict_labels(model, LabelSoftmax(), FIRST, labels, BATCH_TOKENS, prefixes=cache)
    calls = counted(model)
    again = predict_labels(model, LabelSoftmax(), AGAIN, labels, BATCH_TOKENS, prefixes=cache)
    np.testing.assert_allclose(again.probs, expected, atol=2e-6)
    goes_on = (0, 1, 4, 5)
    saved = sum(len(FIRST[n].token_ids) for n in goes_on) - 2 + len(FIRST[3].token_ids) - 1
    contexts = sum(map(len, LabelSoftmax().contexts(labels)))
    assert sum(calls) == sum(len(p.token_ids) + contexts for p in AGAIN) - saved


@pytest.mark.parametrize("num_bytes", [0, 20_000])
def test_what_there_is_no_room_for_is_read_again_in_batches_that_are_no_larger(num_bytes):
    model, labels = build("Llama"), LABELS["one token"]
    expected, cache = alone(model, LabelSoftmax(), labels), PrefixCache(every, num_bytes)
    predict_labels(model, LabelSoftmax(), FIRST, labels, BATCH_TOKENS, prefixes=cache)
    assert 0 <= cache.free_bytes <= num_bytes
    calls = counted(model)
    again = predict_labels(model, LabelSoftmax(), AGAIN, labels, BATCH_TOKENS, prefixes=cache)
    np.testing.assert_allclose(again.probs, expected, atol=2e-6)
    assert max(calls) <= BATCH_TOKENS


def test_labels_of_many_tokens_count_where_there_is_no_room():
    model, cache = build("Llama"), PrefixCache(every, 0)
    labels = LabelTokens(("A", "B"), ((5, *range(10, 25)), (7, *range(30, 45))), (("A",), ("B",)), 0)
    first = prompts([drawn(40), drawn(41)])
    again = prompts([one.token_ids.tolist() + drawn(20 + n) for n, one in enumerate(first)])
    predict_labels(model, LabelSoftmax(), first, labels, 130, prefixes=cache)
    calls = counted(model)
    predict_labels(model, LabelSoftmax(), again, labels, 130, prefixes=cache)
    assert max(calls) <= 130


def test_what_all_rows_begin_with_is_read_once_and_not_kept_row_by_row():
    """Passages before the questions: only an instruction was read, and rows with the same passages share those."""
    model, labels, cache = build("Llama"), LABELS["one token"], PrefixCache(every)
    instruction = drawn(60)
    first = prompts([instruction + drawn(size) for size in (21, 9, 30, 44)])
    again = prompts([instruction + drawn(80 + n // 2) + drawn(5 + n) for n in range(4)])
    shortcuts(model)
    calls = counted(model)
    expected = predict_labels(model, LabelSoftmax(), again, labels, BATCH_TOKENS).probs
    alone = sorted(calls)
    predict_labels(model, LabelSoftmax(), first, labels, BATCH_TOKENS, prefixes=cache)
    calls.clear()
    found = predict_labels(model, LabelSoftmax(), again, labels, BATCH_TOKENS, prefixes=cache).probs
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert sorted(calls) == alone


def test_what_a_killed_prediction_had_read_makes_no_difference_to_the_batches():
    model, labels = build("Llama"), LABELS["one token"]
    cache, resumed = PrefixCache(every), PrefixCache(every)
    probs = predict_labels(model, LabelSoftmax(), FIRST, labels, BATCH_TOKENS, prefixes=cache).probs
    resumed.finish(FIRST, probs)  # all of them stood in the journal
    expected = [cache.common_length(one) for one in AGAIN]
    assert [resumed.common_length(one) for one in AGAIN] == expected != [0] * len(AGAIN)
    assert not any(resumed.lookup(one) for one in AGAIN)


def test_only_rows_that_are_unsure_are_kept():
    model, labels = build("Llama"), LABELS["one token"]
    cache = PrefixCache(lambda probs: probs.max(axis=1) < 0.8)
    probs = predict_labels(model, LabelSoftmax(), FIRST, labels, BATCH_TOKENS, prefixes=cache).probs
    unsure = (probs.max(axis=1) < 0.8).tolist()
    assert {*unsure} == {True, False}
    kept = [cache.lookup(replace(one, token_ids=np.append(one.token_ids, 3))) is not None for one in FIRST]
    assert kept == unsure


def test_a_classification_layer_goes_on_as_well():
    torch.manual_seed(0)
    model = transformers.LlamaForSequenceClassification(transformers.LlamaConfig(**SMALL, num_labels=2)).eval()
    labels, cache = LABELS["one token"], PrefixCache(every)
    expected = alone(model, Classification(), labels)
    predict_labels(model, Classification(), FIRST, labels, BATCH_TOKENS, prefixes=cache)
    again = predict_labels(model, Classification(), AGAIN, labels, BATCH_TOKENS, prefixes=cache)
    np.testing.assert_allclose(again.probs, expected, atol=2e-6)


class Answers:
    """Notes whether it was asked to remember, and asks nothing of a model."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, bool]] = []
        self.is_remembering = False

    def caching_prefixes(self, unsure):
        assert unsure(np.array([[0.5, 0.5], [1.0, 0.0]])).tolist() == [True, False]
        return self

    def __enter__(self) -> None:
        self.is_remembering = True

    def __exit__(self, *_) -> None:
        self.is_remembering = False

    def __call__(self, examples) -> LabelPredictions:
        self.calls.append((len(examples), self.is_remembering))
        probs = np.tile([0.5, 0.5], (len(examples), 1))
        return LabelPredictions(tuple(one.id for one in examples), probs, {"seconds": np.zeros(len(examples))})


class Passages:
    def find(self, examples) -> Found:
        shown = [replace(one, fields={**one.fields, "passages": ("text",)}) for one in examples]
        counts = dict.fromkeys(("num_queries", "num_without_hits", "num_failed_queries"), 0)
        return Found(shown, counts, np.zeros(len(shown)))


def test_a_gate_asks_its_answerer_to_remember_while_it_asks():
    answers = Answers()
    ConfidenceGated(Passages())([Example("q", {"question": ("?",)}, None)], answers)
    assert answers.calls == [(1, True), (1, True)]
    assert not answers.is_remembering
