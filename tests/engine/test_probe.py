"""A probe against a plain computation with transformers and scikit-learn, and what must not change its numbers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from nexttoken.engine import hidden_states
from nexttoken.engine.hidden_states import StateCache
from nexttoken.engine.probe import FILE, FittedProbe, Probe
from nexttoken.engine.probe_answerer import ProbeAnswerer
from nexttoken.errors import UserError
from nexttoken.prompts.prompt import Prompt
from nexttoken.tasks.preference import Preference
from nexttoken.transforms.counts import pair_features
from nexttoken.transforms.orders import swap_sides
from nexttoken.types import Example

TASK = Preference(input_dir="none")
PROMPT = Prompt(user="{{ prompt[0] }}", answer_cue="### Answer\n", labels=("A", "B", "tie"))
SWAP = [1, 0, 2]


def pairs(number: int = 24) -> list[Example]:
    rng = np.random.default_rng(3)
    words = ["answer", "better", "Which", "is", "the", "one", "?", "tie", "A", "B"]
    texts = [[" ".join(rng.choice(words, rng.integers(1, 20))) for _ in range(3)] for _ in range(number)]
    names = ("prompt", "response_a", "response_b")
    return [
        Example(f"r{n}", {name: (text,) for name, text in zip(names, some, strict=True)}, label=n % 3)
        for n, some in enumerate(texts)
    ]


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NEXTTOKEN_CACHE", str(tmp_path))
    return tmp_path


def make(pair, batch_tokens: int = 512, made_by: str = "x", **settings) -> ProbeAnswerer:
    head = Probe(**{"depth": 0.5, "components": 8, "context_tokens": 12, "answer_tokens": 9} | settings).for_task(TASK)
    return ProbeAnswerer(pair.model, head, head.encoder(pair.tokenizer, PROMPT, 64), batch_tokens, made_by)


def fitted(answerer: ProbeAnswerer, examples: list[Example]) -> ProbeAnswerer:
    head = answerer.head
    answerer.probe = FittedProbe.fit(head, answerer.rows(examples), head.targets(examples), 0.1)
    return answerer


def plain_probs(pair, examples: list[Example]) -> np.ndarray:
    """The probabilities by whole forward passes, one text at a time, and scikit-learn."""
    tokenizer, means = pair.tokenizer, []
    for example in examples:
        prompt, *answers = ("\n".join(example.fields[name]) for name in ("prompt", "response_a", "response_b"))
        start = tokenizer(f"{prompt}\n\n", add_special_tokens=False)["input_ids"]
        opening = [tokenizer.bos_token_id] * (tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id)
        start = opening + start[-(12 - len(opening)) :]
        for answer in answers:
            ids = tokenizer(answer, add_special_tokens=False)["input_ids"][:9]
            with torch.no_grad():
                out = pair.model(torch.tensor([[*start, *ids, tokenizer.eos_token_id]]), output_hidden_states=True)
            means.append(out.hidden_states[1][0, len(start) :].mean(0).double().numpy())
    means = np.array(means)
    pca = PCA(8, random_state=0).fit(means)
    first, second = pca.transform(means).reshape(len(examples), 2, -1).transpose(1, 0, 2)
    counts = [pair_features(*(e.fields[name][0] for name in ("response_a", "response_b", "prompt"))) for e in examples]
    signed = np.hstack([first - second, [list(c.signed.values()) for c in counts]])
    shared = np.hstack([abs(first - second), first + second, [list(c.shared.values()) for c in counts]])
    orders = [np.hstack([sign * signed, shared]) for sign in (1, -1)]
    both = np.concatenate(orders)
    mean, scale = both.mean(0), both.std(0) + 1e-9
    labels = np.array([example.label for example in examples])
    targets = np.concatenate([labels, np.take(SWAP, labels), range(3)])
    scaled = [np.clip((one - mean) / scale, -4, 4) for one in orders]
    model = LogisticRegression(C=0.1, max_iter=2000).fit(np.concatenate([*scaled, np.zeros((3, len(mean)))]), targets)
    return (model.predict_proba(scaled[0]) + model.predict_proba(scaled[1])[:, SWAP]) / 2


@pytest.mark.parametrize("name", ["scratch", "stories"])
def test_it_equals_transformers_and_scikit_learn(name, request, own_cache):
    examples, pair = pairs(), request.getfixturevalue(name)
    probs = fitted(make(pair, depth=0.5 if name == "scratch" else 0.2), examples)(examples).probs
    np.testing.assert_allclose(probs, plain_probs(pair, examples), atol=1e-5)
    assert np.ptp(probs[:, 0]) > 0.05  # it says different things of different rows


def test_swapping_the_answers_swaps_the_probabilities(scratch, own_cache):
    examples = pairs()
    answerer = fitted(make(scratch), examples)
    turned = answerer([swap_sides(example) for example in examples]).probs
    np.testing.assert_allclose(answerer(examples).probs, turned[:, SWAP], atol=1e-12)


def test_batches_and_their_order_change_no_probability(scratch, own_cache):
    examples = pairs()
    answerer = fitted(make(scratch), examples)
    alone = make(scratch, batch_tokens=1, made_by="another name, so that nothing is cached")
    alone.probe = answerer.probe
    np.testing.assert_allclose(alone(examples[::-1]).probs[::-1], answerer(examples).probs, atol=1e-5)


def test_a_text_is_read_once(scratch, own_cache, monkeypatch):
    examples = pairs(6)
    before = make(scratch).rows(examples).states

    def refuse(*_):
        raise AssertionError("the model was asked again")

    monkeypatch.setattr(hidden_states, "states_after", refuse)
    np.testing.assert_array_equal(make(scratch).rows(examples[::-1]).states, before[::-1])
    with pytest.raises(AssertionError, match="asked again"):
        make(scratch, depth=1.0).rows(examples)


def test_a_killed_reading_keeps_what_it_saved(scratch, own_cache, monkeypatch):
    """Files appear whole; a damaged one counts as absent."""
    examples, read, calls = pairs(8), hidden_states.states_after, []

    def stop_at_third(*given):
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return read(*given)

    monkeypatch.setattr(hidden_states, "states_after", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        make(scratch, batch_tokens=1).rows(examples)
    (folder,) = (own_cache / "states").iterdir()
    assert [path.suffix for path in folder.iterdir()] == [".npz"]
    whole = make(scratch, batch_tokens=1).rows(examples)
    assert len(calls) == 3 + 16 - 2
    for path in folder.glob("*.npz"):
        path.write_bytes(path.read_bytes()[:-9])
    assert StateCache(folder).load([b"0" * 32]) == {}
    np.testing.assert_array_equal(make(scratch, batch_tokens=1).rows(examples).states, whole.states)


def test_a_saved_probe_answers_the_same(scratch, own_cache, tmp_path):
    examples = pairs()
    answerer = fitted(make(scratch), examples)
    before = answerer(examples).probs
    answerer.probe.save(tmp_path)
    np.testing.assert_allclose(answerer.load_probe(tmp_path)(examples).probs, before, atol=1e-12)
    (tmp_path / FILE).write_bytes(b"nothing")
    with pytest.raises(UserError, match="does not hold a fitted probe"):
        answerer.load_probe(tmp_path)


def test_votes_are_shares_of_a_row(scratch, own_cache):
    """Votes for one class are its label; of others the shares count."""
    examples = pairs()
    sure = [replace(one, votes=tuple(np.eye(3)[one.label])) for one in examples]
    half = [replace(one, votes=(0.5, 0.5, 0.0)) for one in examples]
    probs = fitted(make(scratch), examples)(examples).probs
    np.testing.assert_allclose(fitted(make(scratch), sure)(examples).probs, probs, atol=1e-12)
    split = fitted(make(scratch), half)(examples).probs
    np.testing.assert_allclose(split[:, 0], split[:, 1], atol=1e-3)


@pytest.mark.parametrize("settings", [{"depth": 0}, {"components": 0}, {"strengths": []}, {"answer_tokens": 0}])
def test_faulty_settings_are_refused(settings):
    with pytest.raises(UserError, match="is not accepted"):
        Probe(**settings)
