"""Banned texts are never written, in whatever tokens; tokens stand for the bytes that the tokenizer decodes."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from conftest import Pair
from nexttoken.engine.generation.processors import BannedTexts, find_end
from nexttoken.engine.generation.transformers import TransformersGenerator
from nexttoken.engine.generation.vocabulary import Vocabulary, byte_letters, decode_bytes, encode_texts
from nexttoken.engine.generation.writer import GenerationPrompt
from nexttoken.errors import UserError
from nexttoken.settings import GenerationSettings
from support.real_tokenizers import BUILDERS

END = 2
STARTS = ("Once upon a time", "Lily and Tom", "One day, a big dog", "The", "She wanted to play", "They saw", "A", "He")
SLOW = ("Mistral v1 (sentencepiece BPE)", "Mistral Tekken (byte-level BPE)")  # seconds to build, and of the same kinds
TOKENIZERS = [name for name in BUILDERS if name not in SLOW]
MIXED = "The cat's naïve café — 日本語の質問、🦙 and “quotes”\n\n\tend  ##"


def written(pair: Pair, prompts: Sequence[GenerationPrompt], **settings) -> list[str]:
    generator = TransformersGenerator(pair.model, pair.tokenizer, 100_000, [END])
    rows = {row.id: row.output for row in generator.write(prompts, GenerationSettings(max_new_tokens=20, **settings))}
    return [rows[prompt.id] for prompt in prompts]


@pytest.fixture(scope="module")
def prompts(stories) -> list[GenerationPrompt]:
    return [GenerationPrompt(text, np.array(stories.tokenizer(text)["input_ids"], dtype=np.int32)) for text in STARTS]


@torch.inference_mode()
def best_allowed(pair: Pair, prompt: GenerationPrompt, banned: Sequence[str]) -> str:
    """Greedy by hand: of the tokens after which the decoded answer holds no banned text, the most probable one."""
    token_ids, num_prompt = prompt.token_ids.tolist(), len(prompt.token_ids)

    def text(new_ids: list[int]) -> str:
        return pair.tokenizer.decode(new_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    for _ in range(20):
        order = pair.model(torch.tensor([token_ids])).logits[0, -1].argsort(descending=True).tolist()
        token_ids.append(next(i for i in order if not any(b in text([*token_ids[num_prompt:], i]) for b in banned)))
        if token_ids[-1] == END:
            break
    return text(token_ids[num_prompt:]).strip()


@pytest.mark.parametrize("banned", [["."], ["ed to", "little girl", "L"], ["play outside", "the park", "th", "é"]])
def test_banned_texts_are_stepped_around_and_nothing_else_is(stories, prompts, banned):
    plain, kept = written(stories, prompts), written(stories, prompts, banned=banned)
    assert any(ban in text for ban in banned for text in plain), "they would have been written"
    assert not any(ban in text for ban in banned for text in kept)
    assert kept == [best_allowed(stories, prompt, banned) for prompt in prompts]


def test_a_banned_character_equals_transformers_bad_words(stories, prompts):
    """Every token with the character in it, forbidden by transformers' own processor."""
    tokens = Vocabulary(stories.tokenizer).tokens
    bad_words_ids = [[token_id] for token_id, token in enumerate(tokens) if b"." in token]
    assert 1 < len(bad_words_ids) < 20
    for prompt, text in zip(prompts, written(stories, prompts, banned=["."]), strict=True):
        token_ids = torch.tensor(prompt.token_ids[None], dtype=torch.int64)
        options = {"max_new_tokens": 20, "do_sample": False, "pad_token_id": END}
        whole = stories.model.generate(token_ids, bad_words_ids=bad_words_ids, **options)
        new_ids = whole[0, token_ids.shape[1] :]
        assert text == stories.tokenizer.decode(new_ids, skip_special_tokens=True).strip()


def test_other_spellings_get_past_bad_words_but_not_past_the_ban(stories):
    """'▁Timmy' is one token, '▁' 'T' 'im' 'm' 'y' the same text, of which a tokenizer writes only the first."""
    vocabulary, tokenizer = Vocabulary(stories.tokenizer), stories.tokenizer
    spellings = [["▁Timmy"], ["▁", "T", "im", "m", "y"], ["▁", "T", "i", "m", "m", "y"]]
    ban = BannedTexts(encode_texts(["Timmy"], "banned"), vocabulary, [END])
    for spelling in spellings:
        *before, last = tokenizer.convert_tokens_to_ids(spelling)
        assert tokenizer.unk_token_id not in (*before, last)
        completes = ban.always if not before else ban.after[vocabulary.join(before).strip()]
        assert last in completes
    assert tokenizer("Timmy", add_special_tokens=False)["input_ids"] == tokenizer.convert_tokens_to_ids(["▁Timmy"])


def test_with_and_without_a_space_at_the_beginning_and_inside(stories, scratch):
    """Both kinds of tokenizer: sentencepiece writes '▁cat', byte-level BPE 'Ġcat' and 'cat'; all of them hold 'cat'."""
    for pair in (stories, scratch):
        vocabulary = Vocabulary(pair.tokenizer)
        ban = BannedTexts(encode_texts(["answer", "cat"], "banned"), vocabulary, [END])
        for text in ("answer", " answer", "an answer", "ananswer", "cat", "the cats", "xcat"):
            token_ids = pair.tokenizer(text, add_special_tokens=False)["input_ids"]
            refused = []
            for place, token_id in enumerate(token_ids):
                so_far = vocabulary.join(token_ids[:place])
                after = [own for end, own in ban.after.items() if so_far.endswith(end)]
                refused.append(token_id in ban.always or any(token_id in own for own in after))
            assert sum(refused) == 1, (text, pair.tokenizer.convert_ids_to_tokens(token_ids), refused)


def test_end_tokens_are_never_banned(scratch):
    """Even when the end token is a plain text and that text is banned."""
    vocabulary = Vocabulary(scratch.tokenizer)
    [token_id] = scratch.tokenizer("A", add_special_tokens=False)["input_ids"]
    assert token_id in BannedTexts([b"A"], vocabulary, []).always
    assert token_id not in BannedTexts([b"A"], vocabulary, [token_id]).always
    special = scratch.tokenizer.eos_token_id
    assert special not in BannedTexts([scratch.tokenizer.eos_token.encode()], vocabulary, []).always


@pytest.mark.parametrize("key", ["banned", "stop"])
def test_an_empty_text_is_refused(stories, prompts, key):
    with pytest.raises(UserError, match=f"{key} holds an empty text"):
        written(stories, prompts, **{key: ["a", ""]})


@pytest.mark.parametrize("name", ["stories", "scratch", *TOKENIZERS])
def test_tokens_join_to_what_the_tokenizer_decodes(request, name):
    """sentencepiece BPE and unigram, byte-level BPE of several kinds; special tokens without a name among them."""
    tokenizer = BUILDERS[name]().tokenizer if name in BUILDERS else request.getfixturevalue(name).tokenizer
    vocabulary = Vocabulary(tokenizer)
    for text in (MIXED, " ".join(STARTS), "a", "two  spaces", "日本語 and \u2028 more"):
        token_ids = tokenizer(text)["input_ids"]
        decoded = tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert decode_bytes(vocabulary.join(token_ids)).strip() == decoded.strip()
    random = np.random.default_rng(0).integers(0, len(tokenizer), 600).tolist()
    ascii_ids = [token_id for token_id in random if vocabulary.tokens[token_id].strip().isascii()]
    assert len(ascii_ids) > 50
    decoded = tokenizer.decode(ascii_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert decode_bytes(vocabulary.join(ascii_ids)).strip() == decoded.strip()
    assert vocabulary.join([tokenizer.all_special_ids[0], len(tokenizer) + 7]) == b""


def test_byte_letters_are_those_of_gpt2():
    from tokenizers.pre_tokenizers import ByteLevel

    letters = byte_letters()
    assert sorted(letters.values()) == list(range(256))
    assert set(letters) == set(ByteLevel.alphabet())
    assert (letters["Ġ"], letters["Ċ"], letters["A"]) == (0x20, 0x0A, 0x41)


@pytest.mark.parametrize("pair", ["stories", "scratch"])
def test_a_cut_character_is_left_out(request, pair):
    """The llama takes four bytes, written one by one; what was before it stays."""
    tokenizer = request.getfixturevalue(pair).tokenizer
    vocabulary = Vocabulary(tokenizer)
    token_ids = tokenizer("so 🦙", add_special_tokens=False)["input_ids"]
    assert find_end(token_ids, vocabulary, [END], []).text == "so 🦙"
    for num_missing in (1, 2, 3):
        cut = find_end(token_ids[:-num_missing], vocabulary, [END], [])
        assert (cut.text, cut.num_tokens, cut.finished) == ("so", len(token_ids) - num_missing, False)
    assert decode_bytes("real \ufffd".encode()) == "real \ufffd"
    assert decode_bytes(b"stray \xa6 byte") == "stray \ufffd byte"


def test_where_an_answer_ends(stories):
    vocabulary, tokenizer = Vocabulary(stories.tokenizer), stories.tokenizer
    token_ids = tokenizer(" Hello there. Bye", add_special_tokens=False)["input_ids"]
    assert find_end([*token_ids, END, *token_ids], vocabulary, [END], []) == find_end(
        [*token_ids, END], vocabulary, [END], []
    )
    whole = find_end([*token_ids, END], vocabulary, [END, 5], [])
    assert (whole.text, whole.num_tokens, whole.finished) == ("Hello there. Bye", len(token_ids), True)
    cut = find_end([*token_ids, END], vocabulary, [END], [b"nothing", b"there", b"the"])
    assert (cut.text, cut.finished) == ("Hello", True)
    assert cut.num_tokens < len(token_ids)
    assert find_end([END], vocabulary, [END], []).text == ""
