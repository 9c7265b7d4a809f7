"""max_tokens=auto: what is chosen fits by the memory plan, nothing longer does, and predictions remember it."""

import json

import numpy as np
import pytest
import torch
from transformers import LlamaConfig

import nexttoken.engine.memory_plan.make as plan_module
from nexttoken.engine.answerers import load_answerer
from nexttoken.engine.heads import AnswerText, LabelSoftmax
from nexttoken.engine.memory_plan.advice import FEWEST_TOKENS
from nexttoken.engine.memory_plan.auto_tokens import (
    FILE,
    SPARE_SHARE,
    AutoTokens,
    Longest,
    choose_max_tokens,
    has_room,
    ladder,
    lengthens_prompts,
    measure_longest,
    one_prompt,
    read_max_tokens,
    settle_max_tokens,
)
from nexttoken.engine.memory_plan.make import plan_parts
from nexttoken.engine.memory_plan.table import in_units
from nexttoken.errors import UserError
from nexttoken.models.load import ModelSpec, resolve
from nexttoken.prompts.encode_labels import Encoder
from nexttoken.prompts.encode_texts import TextEncoder
from nexttoken.prompts.prompt import Prompt
from nexttoken.settings import AUTO
from nexttoken.training.learner import Learner
from nexttoken.types import Example
from support.composed import settings

CPU, MIB = torch.device("cpu"), 2**20
CONFIG = LlamaConfig(
    vocab_size=512,
    hidden_size=128,
    intermediate_size=344,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=2048,
)
PROMPT = Prompt("{{ text[0] }}\n", "### Answer\n", ["A", "B", "tie"])


def asked(*overrides: str) -> ModelSpec:
    return resolve(settings("max_tokens=auto", "model.name_or_path=somewhere", *overrides), CONFIG, CPU)


@pytest.fixture
def free(monkeypatch):
    def only(mebibytes: float) -> None:
        monkeypatch.setattr(plan_module, "free_memory", lambda device: int(mebibytes * MIB))

    return only


@pytest.mark.parametrize(("epochs", "num_contexts"), [(0, 1), (2, 2)])
def test_the_budget_fits_and_the_next_rung_does_not(free, epochs, num_contexts):
    given = asked(f"trainer.max_epochs={epochs}")
    free(mebibytes := 40 if epochs else 5)
    budget = choose_max_tokens(given, Longest(10_000, num_contexts))
    rungs = ladder(2048)
    longer = rungs[rungs.index(budget.number) + 1]
    plans = [plan_parts(one_prompt(given, tokens, num_contexts)) for tokens in (budget.number, longer)]
    assert [plan.shape for plan in plans] == [(num_contexts, budget.number), (num_contexts, longer)]
    assert [has_room(plan) for plan in plans] == [True, False]
    assert plans[0].needed <= (1 - SPARE_SHARE) * plans[0].free
    assert str(budget).startswith(f"max_tokens: auto -> {budget.number:,} tokens: ")
    assert budget.reason.endswith(f"of {in_units(mebibytes * MIB)} free on cpu")


@pytest.mark.parametrize(
    ("need", "overrides", "tokens", "reason"),
    [
        (None, (), 2048, "the model's context"),
        (Longest(9000), (), 2048, "the model's context"),
        (Longest(1301), (), 1344, "the longest prompt needs 1,301"),
        (Longest(1301), ("task=quiz", "inference=gated_retrieval", "retriever=bm25"), 2048, "the model's context"),
        (Longest(1301), ("inference=few_shot",), 2048, "the model's context"),
        (Longest(1301), ("inference=swap_averaged",), 1344, "the longest prompt needs 1,301"),
    ],
    ids=str,
)
def test_no_more_than_the_model_and_the_rows_take(free, need, overrides, tokens, reason):
    free(1_000_000)
    budget = choose_max_tokens(asked(*overrides), need)
    assert (budget.number, budget.reason) == (tokens, reason)


def test_a_model_from_nothing_takes_what_its_rows_need_up_to_2048():
    spec = resolve(settings("max_tokens=auto"), device=CPU)
    numbers = [choose_max_tokens(spec, Longest(tokens)).number for tokens in (300, 5000)]
    assert numbers == [320, 2048]


def test_what_is_unknown_does_not_limit(monkeypatch):
    monkeypatch.setattr(plan_module, "free_memory", lambda device: None)
    budget = choose_max_tokens(asked())
    assert budget.number == 2048
    assert "unknown" in budget.reason


def test_nothing_fits_a_thimble(free):
    free(5)
    with pytest.raises(UserError, match=rf"a prompt of {FEWEST_TOKENS} tokens needs about .* 5\.0 MiB are free"):
        choose_max_tokens(asked())
    with pytest.raises(UserError, match="a prompt of 128 tokens"):
        choose_max_tokens(asked(), Longest(100))


def test_choosing_leaves_the_random_numbers_alone(free):
    free(1000)
    before = torch.random.get_rng_state()
    choose_max_tokens(asked())
    assert torch.equal(before, torch.random.get_rng_state())


def test_ways_of_asking_inside_others_are_seen():
    assert lengthens_prompts({"ask": {"_target_": "x", "ask": {"search": {}}}})
    assert not lengthens_prompts({"_target_": "x", "ask": {"_target_": "y"}})


def test_a_word_that_is_no_number_is_refused():
    with pytest.raises(UserError, match="max_tokens='most' is not accepted"):
        settings("max_tokens=most")
    assert settings("max_tokens=auto").max_tokens == AUTO


ROWS = [Example(str(n), {"text": (f"Why? é😀 {n} " * (n % 40 + 1),)}, label=n % 3) for n in range(60)]


def test_the_number_is_remembered_on_another_machine(base_dir, tmp_path, free):
    given = settings(
        "max_tokens=auto", f"model.name_or_path={base_dir}", "trainer.max_epochs=0", "head=label", "seed=1"
    )
    free(1.9)  # forward alone, of a small model: less than its context of 512
    learner = Learner.load(given, LabelSoftmax(), PROMPT, ROWS[:50], ROWS[50:])
    answerer, _ = learner.learn(tmp_path, [])
    chosen = read_max_tokens(tmp_path).number
    assert chosen == learner.encoder.max_tokens < 512
    assert learner.train.counts()["num_truncated"] > 0
    free(1_000_000)  # the other machine
    again = load_answerer(tmp_path, given, PROMPT, LabelSoftmax(), given.batch_tokens)
    np.testing.assert_array_equal(again(ROWS).probs, answerer(ROWS).probs)
    assert [p.token_ids.tolist() for p in again.prompts] == [p.token_ids.tolist() for p in answerer.prompts]
    continued = Learner.load(given, LabelSoftmax(), PROMPT, ROWS[:50], ROWS[50:], tmp_path)
    assert continued.encoder.max_tokens == chosen
    anew = given.model_copy(update={"overwrite": True})
    encoder = Encoder(again.encoder.tokenizer, PROMPT, AUTO)
    assert settle_max_tokens(resolve(anew), encoder, LabelSoftmax(), ROWS, tmp_path).number == 512


def test_a_process_that_comes_late_takes_what_the_first_sends(scratch, monkeypatch, tmp_path):
    """The first may have written its new file already: who reads that and leaves lets the first wait for ever."""
    AutoTokens(300, "already there").save(tmp_path)
    sent = AutoTokens(77, "what the first settled on")
    monkeypatch.setattr("nexttoken.engine.memory_plan.auto_tokens.from_first", lambda make: sent)
    encoder = Encoder(scratch.tokenizer, PROMPT, AUTO)
    assert settle_max_tokens(asked(), encoder, LabelSoftmax(), ROWS, tmp_path) == sent


def test_rows_that_were_measured_are_not_cut(scratch, base_dir, tmp_path):
    given = settings("max_tokens=auto", f"model.name_or_path={base_dir}", "trainer.max_epochs=0")
    learner = Learner.load(given, LabelSoftmax(), PROMPT, ROWS[:20], ROWS[20:30])
    assert learner.encoder.max_tokens < 512
    assert learner.train.counts()["num_truncated"] == learner.dev.counts()["num_truncated"] == 0


def test_open_answers_get_room_to_be_written(scratch):
    """Rows with short answers would leave none of their budget for those that the model writes."""
    encoder = TextEncoder(scratch.tokenizer, Prompt("{{ text[0] }}", "\n"), AUTO)
    rows = [Example(str(n), {"text": ("Why? " * n,)}, answer="so") for n in range(1, 30)]
    longest = max(len(row.token_ids) for row in encoder.encode_prompts(rows, 0).prompts)
    assert measure_longest(encoder, AnswerText(), rows, 256).tokens == longest + 256
    assert measure_longest(encoder, AnswerText(), rows, 1).tokens > longest + 1  # what is learnt fits, too


@pytest.mark.parametrize(
    "text", ["", "{}", '{"max_tokens": "auto", "reason": "x"}', '{"max_tokens": 0, "reason": "x"}']
)
def test_a_broken_budget_is_one_line(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UserError, match=FILE):
        read_max_tokens(tmp_path)


def test_a_number_is_neither_looked_for_nor_kept(scratch, base_dir, tmp_path):
    given = settings("max_tokens=300", f"model.name_or_path={base_dir}", "trainer.max_epochs=0")
    Learner.load(given, LabelSoftmax(), PROMPT, ROWS[:20], []).learn(tmp_path, [])
    assert not (tmp_path / FILE).exists()
    assert json.loads((tmp_path / "labels.json").read_text())["labels"] == list(PROMPT.labels)
