"""A row's own candidates behind one shared prompt equal each candidate in a forward of its own."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from nexttoken.engine.candidate_answerer import CandidateAnswerer, predict_candidates
from nexttoken.engine.candidate_scores import collate_candidates
from nexttoken.engine.forward.shortcuts import Shortcuts, _known, shortcuts
from nexttoken.engine.heads import Candidates
from nexttoken.engine.memory_plan.auto_tokens import measure_longest
from nexttoken.errors import UserError
from nexttoken.prompts.encode_candidates import CandidateEncoder
from nexttoken.prompts.encode_labels import EncodedPrompt
from nexttoken.prompts.encoded import NO_LABELS
from nexttoken.prompts.label_tokens import LabelTokens
from nexttoken.prompts.prompt import Prompt
from nexttoken.settings import AUTO
from nexttoken.types import OPTIONS, Example
from support import small_models
from support.real_tokenizers import byte_level, mistral, sentencepiece, tekken

VOCABULARY = small_models.SMALL["vocab_size"]
YES, NO = 5, 7
ANSWERS = LabelTokens(("Yes", "No"), ((YES,), (NO,)), (("Yes",), ("No",)), 0)
SCORES = ("answer", "text", "text_mean")


@cache
def model(name: str = "Llama", packs: bool = True) -> torch.nn.Module:
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**small_models.SMALL | {"max_position_embeddings": 128})
    built = transformers.AutoModelForCausalLM.from_config(config).eval()
    assert shortcuts(built) == Shortcuts(True, True)
    if not packs:
        _known[built] = Shortcuts()
    return built


def rows(num_rows: int = 6, most: int = 7) -> list[EncodedPrompt]:
    draw = np.random.default_rng(0)

    def ids(size: int) -> np.ndarray:
        return draw.integers(1, VOCABULARY, size).astype(np.int32)

    made = []
    for number in range(num_rows):
        branches = tuple(ids(int(size)) for size in draw.integers(1, 6, 1 + number % most))
        prompt = EncodedPrompt(f"row{number}", number % len(branches), "", ids(3 + 5 * number), False, len(branches))
        made.append(replace(prompt, branches=branches))
    return made


def head_of(score: str) -> tuple[Candidates, LabelTokens]:
    return Candidates(score), ANSWERS if score == "answer" else NO_LABELS


@torch.inference_mode()
def alone(model: torch.nn.Module, prompt: np.ndarray, branch: np.ndarray, score: str) -> float:
    """A candidate's score from all logits of the prompt and this candidate in a forward of their own.

    Of `text` it is the log-likelihood of a continuation as lm-evaluation-harness computes it for multiple choice: the
    log-softmax at each of the continuation's tokens, summed (lm_eval/models/huggingface.py, _loglikelihood_tokens).
    """
    ids = torch.tensor([[*prompt.tolist(), *branch.tolist()]])
    logits = model(input_ids=ids).logits[0].float()
    if score == "answer":
        return float(logits[-1, YES] - logits[-1, NO])
    log_probs = logits.log_softmax(dim=-1)[len(prompt) - 1 : -1]
    own = log_probs.gather(1, torch.from_numpy(branch).long()[:, None])
    return float(own.mean() if score == "text_mean" else own.sum())


def softmax(scores: list[float]) -> np.ndarray:
    weights = np.exp(np.array(scores) - max(scores))
    return weights / weights.sum()


@pytest.mark.parametrize("packs", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("name", ["Llama", "Gemma2", "Qwen3"])
@pytest.mark.parametrize("score", SCORES)
def test_scores_equal_those_of_each_candidate_in_a_forward_of_its_own(score, name, packs):
    (head, labels), lm, prompts = head_of(score), model(name, packs), rows()
    with torch.inference_mode():
        scores = head.scores(lm, head.collate(prompts, labels, packs), labels)
    for row, prompt in zip(scores.tolist(), prompts, strict=True):
        expected = [alone(lm, prompt.token_ids, branch, score) for branch in prompt.branches]
        assert row[: len(expected)] == pytest.approx(expected, abs=1e-5)
        assert row[len(expected) :] == [-torch.inf] * (len(row) - len(expected))


@pytest.mark.parametrize("packs", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("score", SCORES)
@settings(max_examples=6)
@given(data=st.data())
def test_no_order_and_no_batch_changes_a_probability(score, packs, data):
    (head, labels), lm, prompts = head_of(score), model("Llama", packs), rows()
    expected = predict_candidates(lm, head, prompts, labels, batch_tokens=10_000).probs
    batch_tokens = data.draw(st.integers(1, 120), label="batch_tokens")
    order = data.draw(st.permutations(range(len(prompts))), label="rows")
    orders = [data.draw(st.permutations(range(len(prompts[row].branches)))) for row in order]
    shuffled = [
        replace(prompts[row], branches=tuple(prompts[row].branches[place] for place in own))
        for row, own in zip(order, orders, strict=True)
    ]
    found = predict_candidates(lm, head, shuffled, labels, batch_tokens)
    assert found.ids == tuple(prompts[row].id for row in order)
    assert found.probs.sum(axis=1) == pytest.approx(np.ones(len(order)), abs=1e-12)
    for probs, row, own in zip(found.probs, order, orders, strict=True):
        assert probs[: len(own)] == pytest.approx(expected[row, list(own)], abs=1e-5)
        assert not probs[len(own) :].any()


def test_candidates_that_fit_into_no_batch_are_joined_by_one_softmax():
    """257 candidates behind one prompt, in calls of a few each."""
    head, labels = head_of("text")
    draw = np.random.default_rng(1)
    branches = tuple(draw.integers(1, VOCABULARY, 3).astype(np.int32) for _ in range(257))
    prompt = replace(rows()[3], label=0, num_options=257, branches=branches)
    probs = predict_candidates(model(), head, [prompt], labels, batch_tokens=64).probs
    assert probs[0] == pytest.approx(softmax([alone(model(), prompt.token_ids, b, "text") for b in branches]), abs=1e-6)


@pytest.mark.parametrize("score", SCORES)
def test_loss_is_cross_entropy_over_the_rows_candidates_and_its_gradient_that_of_padded_rows(score):
    (head, labels), lm = head_of(score), model()
    prompts = [*rows(), replace(rows()[4], id="no label", label=None)]
    gradients = []
    for packs in (True, False):
        lm.zero_grad()
        loss = head.loss(lm, head.collate(prompts, labels, packs), labels)
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in lm.parameters() if p.grad is not None]))
        expected = sum(
            -np.log(softmax([alone(lm, p.token_ids, b, score) for b in p.branches])[p.label]) for p in prompts[:-1]
        )
        assert loss.item() == pytest.approx(expected, abs=1e-4)
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-3)
    total, number, _ = head.dev_loss(lm, head.collate(prompts, labels), labels)
    assert (total.item(), int(number)) == (pytest.approx(expected, abs=1e-4), len(prompts) - 1)


def test_smoothing_gives_the_other_candidates_their_share():
    labels, lm, prompts = ANSWERS, model(), rows()[3:5]
    head, batch = Candidates(label_smoothing=0.2), collate_candidates(prompts, whole=True)
    log_probs = Candidates().scores(lm, batch, labels).log_softmax(1)
    expected = sum(
        -(0.8 * own[prompt.label] + 0.2 * own[: len(prompt.branches)].mean())
        for own, prompt in zip(log_probs, prompts, strict=True)
    )
    assert head.loss(lm, batch, labels).item() == pytest.approx(expected.item(), abs=1e-5)


def test_halves_and_fillers_hold_the_same_rows():
    head, labels = head_of("text")
    batch = head.collate(rows(), labels, packs=True)
    whole = head.loss(model(), batch, labels).item()
    assert sum(head.loss(model(), half, labels).item() for half in batch.halves) == pytest.approx(whole, abs=1e-4)
    assert head.loss(model(), batch.filler, labels).item() == 0
    assert all(head.loss(model(), half, labels).item() == 0 for half in batch.filler.halves)


TOKENIZERS = {
    "mistral v1": lambda: mistral("v1"),
    "tekken": tekken,
    "bpe": lambda: sentencepiece("bpe"),
    "unigram": lambda: sentencepiece("unigram"),
    "byte level": lambda: byte_level(False, False),
    "byte level, prefix space": lambda: byte_level(True, True),
}
CUES = ("### Answer\n", "Answer:", "Answer: ", "### 回答\n")
NAMES = ("Roses in May", "roses", "it depends", " tie", "10", "1", "tie.", "バラ", "A\nB", "(a) 10 of 10", "the answer")


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("cue", CUES)
@pytest.mark.parametrize("after", ["", "\n", "\n### Right?\n"])
def test_a_branch_has_the_tokens_of_prompt_and_candidate_together(tokenizer, cue, after):
    """Tokens that span the join are right, though a candidate is encoded once for all rows."""
    encoder = CandidateEncoder(TOKENIZERS[tokenizer]().tokenizer, Prompt("{{ text[0] }}\n", cue), 256, after)
    examples = [
        Example(str(n), {"text": (text,), OPTIONS: NAMES[n : n + 5]}, n % 5)
        for n, text in enumerate(
            ("Which answer is better?", "Plant roses in May.", "評価は10点です。", "1 2 3", "Rate it")
        )
    ]
    for example, prompt in zip(examples, encoder.encode(examples).prompts, strict=True):
        assert prompt.text == f"{example.fields['text'][0]}\n{cue}"
        assert (prompt.label, prompt.num_options) == (example.label, 5)
        for name, branch in zip(example.fields[OPTIONS], prompt.branches, strict=True):
            assert [*prompt.token_ids, *branch] == encoder.ids(prompt.text + name + after)


@settings(max_examples=30)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12), min_size=1, unique=True))
def test_any_candidate_has_its_own_tokens_behind_a_fixed_line(names):
    encoder = CandidateEncoder(tekken().tokenizer, Prompt("{{ text[0] }}\n", "### Answer\n"), 512)
    clean = encoder.disarm(Example("", {OPTIONS: tuple(names)}))[0].fields[OPTIONS]
    [prompt] = encoder.encode([Example("1", {"text": ("Which?",), OPTIONS: tuple(names)})]).prompts
    for name, branch in zip(clean, prompt.branches, strict=True):
        assert [*prompt.token_ids, *branch] == encoder.ids(prompt.text + name)


def answering(tokenizer, **options) -> CandidateEncoder:
    return CandidateEncoder(tokenizer, Prompt("{{ text[0] }}\n", "### Answer\n"), 64, **options)


def test_prompts_leave_room_for_their_longest_candidate():
    tokenizer = tekken().tokenizer
    long = Example("1", {"text": ("word " * 200,), OPTIONS: ("no", "a much longer candidate of many words")})
    for options in ({}, {"after": "\n### Right?\n", "answers": ("Yes", "No")}):
        [prompt] = answering(tokenizer, **options).encode([long]).prompts
        assert prompt.was_cut
        assert 58 <= len(prompt.token_ids) + max(map(len, prompt.branches)) <= 64


def test_what_cannot_be_encoded_apart_is_refused_in_one_line():
    tokenizer = tekken().tokenizer
    rows = [Example(str(n), {"text": (text,), OPTIONS: ("a", "b")}) for n, text in enumerate(("one", "two three"))]
    with pytest.raises(UserError, match=r"1 prompts end unlike the others .*end prompt.answer_cue with a fixed line"):
        CandidateEncoder(tokenizer, Prompt("{{ text[0] }}", ""), 64).encode(rows)
    with pytest.raises(UserError, match="the candidate '' has no tokens"):
        answering(tokenizer).encode([replace(rows[0], fields={"text": ("x",), OPTIONS: ("a", "")})])
    with pytest.raises(UserError, match=r"head.answers begin with the same token"):
        answering(tokenizer, after="\n", answers=("Yes", "Yes!")).encode(rows)


def test_options_are_hidden_from_a_prompt_that_lists_every_field():
    user = "{% for option in options %}{{ option }} {% endfor %}{{ text[0] }}\n"
    rows = [Example("1", {"text": ("Which?",), OPTIONS: ("a", "b")})]
    shown = CandidateEncoder(tekken().tokenizer, Prompt(user, "### Answer\n", options=OPTIONS), 64).encode(rows)
    assert shown.prompts[0].text == "a b Which?\n### Answer\n"
    assert answering(tekken().tokenizer).encode(rows).prompts[0].text == "Which?\n### Answer\n"


def test_control_tokens_in_a_candidate_are_broken_up():
    tokenizer = mistral("v3").tokenizer
    encoded = answering(tokenizer).encode([Example("1", {"text": ("x",), OPTIONS: ("[INST] a", "b")})])
    assert encoded.num_disarmed == 1
    assert not set(tokenizer.all_special_ids) & set(encoded.prompts[0].branches[0].tolist())


def test_an_answerer_gives_each_option_its_probability(scratch):
    prompt = Prompt("{{ text[0] }}\n", "### Answer\n")
    examples = [
        Example(str(n), {"text": ("Which answer is better?",), OPTIONS: ("A", "B", "tie", "the better one")[: n + 1]})
        for n in range(4)
    ]
    for score in SCORES:
        head = Candidates(score)
        encoder = CandidateEncoder(scratch.tokenizer, prompt, 64, head.after, head.answers)
        labels = encoder.encode(examples).labels
        found = CandidateAnswerer(scratch.model, head, encoder, labels, 512)(examples)
        assert found.probs.shape == (4, 4)
        for probs, example in zip(found.probs, examples, strict=True):
            texts = [encoder.text(example) + option + head.after for option in example.fields[OPTIONS]]
            base = np.array(encoder.ids(encoder.text(example)))
            ids = [np.array(encoder.ids(text)[len(base) :]) for text in texts]
            if score == "answer":
                yes, no = (one[0] for one in labels.continuations)
                with torch.inference_mode():
                    logits = [scratch.model(torch.tensor([[*base, *one]])).logits[0, -1] for one in ids]
                expected = softmax([float(one[yes] - one[no]) for one in logits])
            else:
                expected = softmax([alone(scratch.model, base, one, score) for one in ids])
            assert probs[: len(ids)] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"score": "txt"}, "head.score='txt' is not accepted; did you mean 'text'?"),
        ({"answers": ["Yes"]}, r"head.answers=\['Yes'\] is not accepted: expected two words"),
        ({"label_smoothing": 1.0}, "head.label_smoothing=1.0 is not accepted"),
    ],
)
def test_wrong_settings_of_the_head_are_refused(options, line):
    with pytest.raises(UserError, match=line):
        Candidates(**options)


def test_max_tokens_auto_holds_the_longest_prompt_with_its_longest_candidate():
    encoder = CandidateEncoder(tekken().tokenizer, Prompt("{{ text[0] }}\n", "### Answer\n"), AUTO)
    examples = [Example(str(n), {"text": ("word " * n,), OPTIONS: ("no", "yes " * (9 - n))}) for n in range(1, 9)]
    prompts, head = encoder.encode(examples).prompts, Candidates("text")
    found = measure_longest(encoder, head, examples)
    assert found.tokens == max(len(p.token_ids) + max(map(len, p.branches)) for p in prompts)
    assert found.tokens * found.num_contexts >= max(head.num_read(p, NO_LABELS, packs=True) for p in prompts)


@pytest.mark.parametrize("packs", [True, False], ids=["packed", "padded"])
def test_votes_share_the_target_among_a_rows_candidates(packs):
    (head, labels), lm = head_of("text"), model()
    prompts = [replace(rows()[3], votes=(0.5, 0.25, 0.25, 0.0)), rows()[1]]
    batch = head.collate(prompts, labels, packs)
    log_probs = head.scores(lm, batch, labels).log_softmax(1)
    expected = -(0.5 * log_probs[0, 0] + 0.25 * log_probs[0, 1] + 0.25 * log_probs[0, 2] + log_probs[1, 1])
    assert head.loss(lm, batch, labels).item() == pytest.approx(expected.item(), abs=1e-5)
