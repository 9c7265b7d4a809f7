"""Sampled answers are exact draws from the model's probabilities, and each row's own whatever it is written with."""

from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import TemperatureLogitsWarper, TopPLogitsWarper

from nexttoken.engine.generation.processors import GumbelNoise
from nexttoken.engine.generation.transformers import TransformersGenerator
from nexttoken.engine.generation.writer import GenerationPrompt
from nexttoken.settings import GenerationSettings

CPU = torch.device("cpu")
END = 2
LOGITS = torch.tensor([2.0, 1.0, 0.5, -1.0, 1.5, 0.0])  # a vocabulary of six
NUM_DRAWS = 4000
LEAST = 1e-3  # a right sampler fails this once in a thousand seeds; this one's seed is fixed


def draws(scores: torch.Tensor, seed: int = 0, step: int = 0) -> np.ndarray:
    """The tokens that `NUM_DRAWS` rows with these scores choose in one step."""
    noise = GumbelNoise(seed, [f"row{number}" for number in range(NUM_DRAWS)], 5, CPU)
    input_ids = torch.zeros(NUM_DRAWS, 5 + step, dtype=torch.int64)
    return noise(input_ids, scores.expand(NUM_DRAWS, -1)).argmax(dim=-1).numpy()


def test_draws_are_of_the_softmax():
    counts = np.bincount(draws(LOGITS), minlength=6)
    assert chisquare(counts, LOGITS.double().softmax(dim=-1).numpy() * NUM_DRAWS).pvalue > LEAST
    wrong = (LOGITS.double() / 1.15).softmax(dim=-1).numpy() * NUM_DRAWS
    assert chisquare(counts, wrong).pvalue < LEAST, "the test would notice a temperature of 1.15"


def test_draws_of_two_steps_and_of_two_seeds_are_independent():
    probs = LOGITS.double().softmax(dim=-1).numpy()
    first = draws(LOGITS)
    for second in (draws(LOGITS, step=1), draws(LOGITS, seed=1)):
        pairs = np.bincount(first * 6 + second, minlength=36)
        assert chisquare(pairs, np.outer(probs, probs).ravel() * NUM_DRAWS).pvalue > LEAST


def test_temperature_and_nucleus_come_before_the_draw():
    """At 0.7 and top-p 0.8 three tokens of the six are left, in their own proportions."""
    scores = TopPLogitsWarper(0.8)(torch.zeros(1, 5), TemperatureLogitsWarper(0.7)(torch.zeros(1, 5), LOGITS[None]))
    probs = scores[0].double().softmax(dim=-1).numpy()
    assert (probs > 0).sum() == 3
    counts = np.bincount(draws(scores[0]), minlength=6)
    assert not counts[probs == 0].any()
    assert chisquare(counts[probs > 0], probs[probs > 0] * NUM_DRAWS).pvalue > LEAST


@pytest.fixture(scope="module")
def prompts(stories) -> list[GenerationPrompt]:
    starts = ("Once upon a time", "Lily", "One day, a big dog saw", "The", "She wanted to play with the ball and")
    rows = [(f"{number}", starts[number % 5]) for number in range(20)]
    return [GenerationPrompt(id, np.array(stories.tokenizer(text)["input_ids"], dtype=np.int32)) for id, text in rows]


def sampled(pair, prompts, batch_tokens: int = 100_000, **settings) -> dict[str, str]:
    generator = TransformersGenerator(pair.model, pair.tokenizer, batch_tokens, [END])
    settings = GenerationSettings(**{"max_new_tokens": 16, "temperature": 0.9, "top_p": 0.95, "seed": 7, **settings})
    return {row.id: row.output for row in generator.write(prompts, settings)}


def test_batch_and_order_and_company_change_nothing(stories, prompts):
    together = sampled(stories, prompts)
    assert len(set(together.values())) > 15, "rows with the same prompt draw differently"
    assert sampled(stories, prompts, 120) == together
    assert sampled(stories, prompts[::-1], 300) == together
    assert sampled(stories, prompts[3:9]) == {prompt.id: together[prompt.id] for prompt in prompts[3:9]}


def test_seed_and_id_change_the_text(stories, prompts):
    together = sampled(stories, prompts)
    other = sampled(stories, prompts, seed=8)
    assert sum(together[id] != other[id] for id in together) > 15
    renamed = [GenerationPrompt(f"{prompt.id}x", prompt.token_ids) for prompt in prompts]
    assert sum(together[id] != text for id, text in zip(together, sampled(stories, renamed).values(), strict=True)) > 15


def test_first_tokens_of_a_model_are_drawn_from_its_probabilities(stories):
    """End to end, at 1.3 with half of the mass: the whole spine of processors, read from the texts."""
    token_ids = np.array(stories.tokenizer("Lily saw a")["input_ids"], dtype=np.int32)
    rows = [GenerationPrompt(f"{number}", token_ids) for number in range(1500)]
    counts = Counter(sampled(stories, rows, max_new_tokens=1, temperature=1.3, top_p=0.5).values())
    with torch.inference_mode():
        logits = stories.model(torch.tensor(token_ids[None], dtype=torch.int64)).logits[:, -1]
    scores = TopPLogitsWarper(0.5)(torch.zeros(1, 1), logits / 1.3)
    expected: Counter[str] = Counter()
    for token_id, prob in enumerate(scores[0].double().softmax(dim=-1).tolist()):
        if prob:
            expected[stories.tokenizer.decode([token_id], skip_special_tokens=True).strip()] += prob * len(rows)
    assert set(counts) <= set(expected)
    assert len(expected) > 3
    assert chisquare([counts[text] for text in expected], list(expected.values())).pvalue > LEAST


def test_almost_no_temperature_is_greedy(stories, prompts):
    assert sampled(stories, prompts[:5], temperature=1e-4) == sampled(stories, prompts[:5], temperature=0.0)
