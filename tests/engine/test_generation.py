"""Greedy answers equal those of transformers' `generate` for each prompt alone, whatever the batch."""

import copy
from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
)

from conftest import Pair
from nexttoken.engine.generation.shared_prefix import SharedPrefix
from nexttoken.engine.generation.transformers import TransformersGenerator, generation_batches
from nexttoken.engine.generation.writer import GeneratedText, GenerationPrompt, max_new_tokens
from nexttoken.errors import UserError
from nexttoken.settings import GenerationSettings
from support.model_shapes import SHAPES

STORY = (
    "Once upon a time there was a little girl named Lily and her dog Tim who loved to "
    "play in the park with a big red ball. "
    "One day they saw a cat and said hello to it, but the cat was sad. It had lost its hat in the rain!"
)
WORDS = STORY.split()
NEW = 16  # tokens that are written
END, DOT = 2, 426  # of stories260k: the end of text, and "." as one token


def prompts_of(tokenizer, num_prompts: int, most_words: int = 30) -> list[GenerationPrompt]:
    """Prompts of 1 to `most_words` words, in no order of length, with texts that begin in different places."""
    rows = []
    for number in range(num_prompts):
        start, length = number * 5 % 17, 1 + number * 11 % most_words
        token_ids = tokenizer(" ".join(WORDS[start : start + length]))["input_ids"]
        rows.append(GenerationPrompt(f"row{number}", np.array(token_ids, dtype=np.int32)))
    return rows


@torch.inference_mode()
def alone(pair: Pair, prompt: GenerationPrompt, stop_id: int, **options) -> str:
    """transformers' answer to one prompt, as a text."""
    token_ids = torch.tensor(prompt.token_ids[None], dtype=torch.int64)
    options = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": stop_id, "pad_token_id": 0, **options}
    whole = pair.model.generate(token_ids, attention_mask=torch.ones_like(token_ids), **options)
    new_ids = [token for token in whole[0, token_ids.shape[1] :].tolist() if token != stop_id]
    return pair.tokenizer.decode(new_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip()


def written(
    pair: Pair, prompts: Sequence[GenerationPrompt], batch_tokens: int, stop_id: int = END, **settings
) -> list[GeneratedText]:
    """The rows in the order of `prompts`."""
    generator = TransformersGenerator(pair.model, pair.tokenizer, batch_tokens, [stop_id])
    settings = GenerationSettings(**{"max_new_tokens": NEW, **settings})
    rows = {row.id: row for row in generator.write(prompts, settings)}
    assert len(rows) == len(prompts)
    return [rows[prompt.id] for prompt in prompts]


def texts(rows: Sequence[GeneratedText]) -> list[str]:
    return [row.output for row in rows]


@pytest.fixture(scope="module")
def forty(stories) -> list[GenerationPrompt]:
    prompts = prompts_of(stories.tokenizer, 40)
    assert len({len(prompt.token_ids) for prompt in prompts}) > 20
    return prompts


BATCH_TOKENS = [250, 1000, 100_000]  # four to ten rows, twenty or more, all forty
CASES = {  # what is asked -> how transformers is asked for the same
    "plain": ({}, {}),
    "repetition penalty": ({"repetition_penalty": 1.3}, {"repetition_penalty": 1.3}),
}


@pytest.mark.parametrize("case", CASES)
def test_equal_to_transformers_one_prompt_at_a_time(stories, forty, case):
    settings, options = CASES[case]
    expected = [alone(stories, prompt, END, **options) for prompt in forty]
    assert len(set(expected)) > 15, "the answers differ"
    for batch_tokens in BATCH_TOKENS:
        assert texts(written(stories, forty, batch_tokens, **settings)) == expected
    turned = written(stories, forty[::-1], 1000, **settings)
    assert texts(turned)[::-1] == expected


def test_the_penalty_does_not_see_padding(stories, forty):
    """Rows are padded with the end token, here the full stop: a penalty on it would make answers longer."""
    options = {"repetition_penalty": 1.3, "max_new_tokens": 12}
    some = forty[:16]
    expected = [alone(stories, prompt, DOT, **options) for prompt in some]
    rows = written(stories, some, 100_000, DOT, **options)
    assert texts(rows) == expected
    assert 4 < sum(row.finished for row in rows) < 16
    assert all(row.finished == (row.num_tokens < 12) for row in rows)


def test_the_penalty_does_not_see_what_stands_behind_a_shared_beginning(stories):
    """Rows of other lengths are padded there, not before it; the full stop is no part of any prompt."""
    words = STORY.replace(".", "").split()
    options = {"repetition_penalty": 1.3, "max_new_tokens": 12}
    ids = [stories.tokenizer(" ".join(words[: 26 + number]))["input_ids"] for number in range(1, 16)]
    prompts = [GenerationPrompt(str(number), np.array(row, np.int32)) for number, row in enumerate(ids)]
    assert SharedPrefix(stories.model, prompts).length > 30
    expected = [alone(stories, prompt, DOT, **options) for prompt in prompts]
    rows = written(stories, prompts, 100_000, DOT, **options)
    assert texts(rows) == expected
    assert sum(row.finished for row in rows) > 4


def test_stop_texts_cut_what_transformers_writes(stories, forty):
    """'ed to' is never one token, ' girl' may be at an answer's very beginning, and prompts end in stop texts, too."""
    stops, some = ["ed to", "girl", "\n"], forty[:24]
    whole = [alone(stories, prompt, END) for prompt in some]
    expected = [
        text[: min([text.find(stop) for stop in stops if stop in text], default=len(text))].strip() for text in whole
    ]
    assert sum(a != b for a, b in zip(whole, expected, strict=True)) > 5
    rows = written(stories, some, 1000, stop=stops)
    assert texts(rows) == expected
    stopped = [any(stop in text for stop in stops) for text in whole]
    assert [row.finished for row in rows] == stopped
    assert all(row.num_tokens == NEW for row in rows if not row.finished)


def test_a_stop_text_in_the_prompt_stops_nothing(stories):
    token_ids = np.array(stories.tokenizer("Lily had a big red")["input_ids"], dtype=np.int32)
    prompt = GenerationPrompt("a", token_ids)
    [row] = written(stories, [prompt], 1000, stop=["red", "big"])
    assert row.num_tokens > 3
    assert row.output == alone(stories, prompt, END)


RANDOM = {"initializer_range": 0.4, "bos_token_id": 0, "eos_token_id": 1}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, **RANDOM}


def gpt2(vocab_size: int):
    return GPT2LMHeadModel(GPT2Config(vocab_size=vocab_size, n_positions=80, n_embd=32, n_layer=2, n_head=4, **RANDOM))


def neox(vocab_size: int):
    return GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=vocab_size, max_position_embeddings=128, **SMALL))


def gemma2(vocab_size: int):
    """As Gemma-2 is shipped, in small: every other layer sees the last nine tokens only."""
    sizes = {**SMALL, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 9, "vocab_size": vocab_size}
    sizes["tie_word_embeddings"] = False  # or so small and random a model repeats its last token
    return Gemma2ForCausalLM(Gemma2Config(**{**SHAPES["gemma2_2b"]().to_diff_dict(), **sizes, "layer_types": None}))


def whole(text: str) -> str:
    """Random models write stray bytes; those that might begin a character are left out at the end of an answer."""
    return text.rstrip("\ufffd")


@pytest.mark.parametrize("build", [gpt2, neox, gemma2])
def test_learnt_rotary_and_sliding_positions(scratch, build):
    """Left padding moves no position: learnt ones count from a row's first token, windows hold no padding."""
    torch.manual_seed(3)
    pair = Pair(scratch.tokenizer, build(len(scratch.tokenizer)).eval())
    prompts = [
        GenerationPrompt(str(number), np.random.default_rng(number).integers(5, 280, 1 + number * 7 % 40, np.int32))
        for number in range(14)
    ]
    expected = [whole(alone(pair, prompt, 1, repetition_penalty=1.2)) for prompt in prompts]
    assert len(set(expected)) == 14
    for batch_tokens in (200, 100_000):
        rows = written(pair, prompts, batch_tokens, 1, repetition_penalty=1.2)
        assert [whole(row.output) for row in rows] == expected


@pytest.mark.parametrize("build", [gpt2, neox, gemma2])
def test_what_all_prompts_begin_with_is_read_once(scratch, build):
    """Not where a window would hold the padding that stands behind it: there every row reads it."""
    torch.manual_seed(3)
    pair = Pair(scratch.tokenizer, build(len(scratch.tokenizer)).eval())
    sizes = [36 + number * 7 % 25 for number in range(9)]
    rows = [np.random.default_rng(size).integers(5, 280, size, np.int32) for size in sizes]
    for row in rows:
        row[:35] = rows[0][:35]
    prompts = [GenerationPrompt(str(number), row) for number, row in enumerate(rows)]
    expected = [whole(alone(pair, prompt, 1, repetition_penalty=1.2)) for prompt in prompts]
    assert len(set(expected)) > 5
    read: list[int] = []
    pair.model.get_input_embeddings().register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].numel()))
    for batch_tokens in (200, 100_000):
        written_rows = written(pair, prompts, batch_tokens, 1, repetition_penalty=1.2)
        assert [whole(row.output) for row in written_rows] == expected
    prefilled = 9 * max(sizes)
    assert ((prefilled - 9 * 35) in read) == (build is not gemma2)
    assert (prefilled in read) == (build is gemma2)


def test_the_prefill_reads_one_position(stories, forty):
    """The head is computed for the last token of each prompt only: no logits (rows, prompt, vocabulary)."""
    shapes = []
    hook = stories.model.lm_head.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    written(stories, forty[:4], 100_000, max_new_tokens=2)
    hook.remove()
    assert [shape[:2] for shape in shapes] == [(4, 1), (4, 1)]


def test_what_the_folder_says_about_generation_does_not_count(stories, forty):
    """Folders ship with penalties and the like (Qwen2.5: 1.05), which would change answers unasked."""
    some = forty[:6]
    expected = texts(written(stories, some, 1000))
    defaults = GenerationConfig(repetition_penalty=5.0, no_repeat_ngram_size=1, do_sample=True, top_k=3, min_length=50)
    pair = Pair(stories.tokenizer, copy.deepcopy(stories.model))
    pair.model.generation_config = defaults
    pair.model.train()
    assert texts(written(pair, some, 1000)) == expected
    assert pair.model.generation_config is defaults
    assert pair.model.training


def test_an_adapter_writes_too(scratch):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(4)
    adapted = get_peft_model(copy.deepcopy(scratch.model), LoraConfig(target_modules="all-linear", r=4))
    prompts = prompts_of(scratch.tokenizer, 6, 8)
    plain = texts(written(scratch, prompts, 1000, 0))
    assert texts(written(Pair(scratch.tokenizer, adapted), prompts, 1000, 0)) == plain, "a new LoRA changes nothing"
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    assert texts(written(Pair(scratch.tokenizer, adapted), prompts, 1000, 0)) != plain


def test_the_context_bounds_an_answer(scratch, capsys):
    """80 learnt positions: the next one does not exist, and would be an IndexError."""
    torch.manual_seed(3)
    pair = Pair(scratch.tokenizer, gpt2(len(scratch.tokenizer)).eval())
    prompts = [GenerationPrompt(f"r{n}", np.arange(5, 5 + n, dtype=np.int32)) for n in (3, 79, 60, 61, 70, 70, 8)]
    prompts = [GenerationPrompt(f"{n}:{p.id}", p.token_ids) for n, p in enumerate(prompts)]
    rows = written(pair, prompts, 100_000, 1)
    assert [row.num_tokens for row in rows] == [16, 1, 16, 16, 10, 10, 16]
    alike = [alone(pair, prompt, 1, max_new_tokens=row.num_tokens) for prompt, row in zip(prompts, rows, strict=True)]
    assert [whole(row.output) for row in rows] == [whole(text) for text in alike]
    assert "3 rows can write fewer than max_new_tokens=16: the model's context holds 80 tokens (1:r79, 4:r70" in (
        capsys.readouterr().out
    )


def test_prompts_that_leave_no_room_are_named():
    full = [GenerationPrompt(id, np.zeros(n, dtype=np.int32)) for id, n in (("a", 79), ("b", 80), ("c", 200))]
    with pytest.raises(UserError, match=r"2 prompts fill the model's context of 80 tokens \(b, c\); lower max_tokens"):
        max_new_tokens(full, 20, 80)
    with pytest.raises(UserError, match=r"1 prompts have no tokens \(d\)"):
        max_new_tokens([GenerationPrompt("d", np.zeros(0, dtype=np.int32))], 20, 80)
    assert max_new_tokens(full, 20, None) == [20, 20, 20]


def test_batches_hold_prompts_and_answers():
    lengths = [5, 60, 30, 75, 75, 10, 72, 5]
    rows = [GenerationPrompt(str(n), np.zeros(n, dtype=np.int32)) for n in lengths]
    most = max_new_tokens(rows, 20, 80)
    made = generation_batches(rows, most, 160)
    assert sorted(row for batch in made for row in batch) == list(range(8))
    for batch in made:
        assert len(batch) * (max(lengths[row] for row in batch) + most[batch[0]]) <= 160
        assert len({most[row] for row in batch}) == 1
    assert generation_batches(rows, most, 1) == [[3], [4], [6], [1], [2], [5], [0], [7]], (
        "a lone row may exceed the budget"
    )


def exhausted(function, most_rows: int, calls: list[int], input_ids, **options):
    calls.append(len(input_ids))
    if len(input_ids) > most_rows:
        raise torch.OutOfMemoryError("CUDA out of memory")
    return function(input_ids, **options)


def test_out_of_memory_halves_the_batches_once(stories, forty, monkeypatch, capsys):
    some, calls = forty[:12], []
    expected = texts(written(stories, some, 300))
    real = stories.model.generate
    monkeypatch.setattr(stories.model, "generate", partial(exhausted, real, 5, calls))
    assert texts(written(stories, some, 500)) == expected
    assert max(calls[1:]) <= 5 < calls[0]
    assert "two halves" in capsys.readouterr().out
    monkeypatch.setattr(stories.model, "generate", partial(exhausted, real, 0, calls))
    with pytest.raises(UserError, match=r"out of memory while writing .* tokens \(row.*try batch_tokens=250"):
        written(stories, some, 500)


def test_scores_that_are_not_finite_are_named(stories, forty):
    """One row's prompt holds a token whose embedding is NaN; the other rows of its batch are kept."""
    pair = Pair(stories.tokenizer, copy.deepcopy(stories.model))
    pair.model.lm_head.weight = torch.nn.Parameter(pair.model.lm_head.weight.clone())  # untied
    unused = 511
    with torch.no_grad():
        pair.model.model.embed_tokens.weight[unused] = torch.nan
    bad = GenerationPrompt("bad", np.array([1, unused, 300], dtype=np.int32))
    generator = TransformersGenerator(pair.model, pair.tokenizer, 100_000, [END])
    kept = []
    with pytest.raises(UserError, match=r"not finite for 1 rows \(bad\); try model.dtype=float32"):
        kept.extend(generator.write([*forty[:3], bad], GenerationSettings(max_new_tokens=4)))
    assert {row.id for row in kept} == {"row0", "row1", "row2"}


def test_no_end_token_is_refused(stories):
    with pytest.raises(UserError, match="no token ends an answer"):
        TransformersGenerator(stories.model, stories.tokenizer, 100, [])
