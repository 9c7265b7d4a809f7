"""The tokens of each label as they stand after a prompt, over tokenizers of every kind, and what is refused."""

import re

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from nexttoken.errors import UserError
from nexttoken.models.saved import load_labels, save_labels
from nexttoken.prompts.encode_labels import Encoder
from nexttoken.prompts.label_tokens import LabelTokens, find_label_tokens
from nexttoken.prompts.prompt import Prompt
from nexttoken.types import Example

TEXTS = ["### Answer: A", "### Answer: B", "### Answer: Tie", "one two three", "10 out of 10", "tie tied tie tied"]


def find(tokenizer, cue: str, labels: list[str], *texts: str) -> LabelTokens:
    """The label tokens after each of `texts` and the cue."""
    rows = [Example(str(n), {"text": (text,)}) for n, text in enumerate(texts or ("some text",))]
    return Encoder(tokenizer, Prompt("{{ text[0] }}", cue, labels), 128).encode(rows).labels


def learn(tokenizer: Tokenizer, trainer: trainers.Trainer) -> PreTrainedTokenizerFast:
    tokenizer.train_from_iterator(TEXTS * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>")


@pytest.fixture(scope="module")
def metaspace() -> PreTrainedTokenizerFast:
    """As sentencepiece does: spaces become ▁, one in front, bytes for what is not in the vocabulary."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    specials = ["<unk>", "<s>", *byte_tokens]
    return learn(tokenizer, trainers.BpeTrainer(vocab_size=330, special_tokens=specials, show_progress=False))


@pytest.fixture(scope="module")
def word_level() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return learn(tokenizer, trainers.WordLevelTrainer(special_tokens=["<unk>", "<s>"], show_progress=False))


@pytest.fixture(scope="module")
def lower_case() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return learn(tokenizer, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False))


def test_one_token_labels_after_a_line_break(scratch):
    labels = find(scratch.tokenizer, "\n### Answer\n", ["A", "B", "tie"])
    a, b, tie = scratch.tokenizer.convert_tokens_to_ids(["A", "B", "tie"])
    assert labels == LabelTokens(("A", "B", "tie"), ((a,), (b,), (tie,)), (("A",), ("B",), ("tie",)), 0)
    assert labels.one_token_each
    assert labels.contexts == ((),)
    assert labels.table() == (
        "label  token ids  pieces  prompt stays a prefix\n"
        f"'A'    {a}         'A'     yes\n"
        f"'B'    {b}         'B'     yes\n"
        f"'tie'  {tie}        'tie'   yes"
    )


def test_the_space_belongs_to_the_token(metaspace):
    after_space = find(metaspace, "\n### Answer:", [" A", " B", " Tie"])
    assert after_space.pieces == (("▁A",), ("▁B",), ("▁Tie",))
    after_colon = find(metaspace, "\n### Answer:", ["A", "B", "Tie"])
    assert after_colon.pieces == (("A",), ("B",), ("Tie",))


def test_labels_of_different_token_counts(stories):
    """A is two tokens, B is one: reading the first token would compare a space with ' B'."""
    labels = find(stories.tokenizer, "\n### Answer:", [" A", " B", " Tie"])
    assert labels.pieces == (("▁", "A"), ("▁B",), ("▁T", "i", "e"))
    assert (labels.num_rejoined, labels.longest, labels.one_token_each) == (0, 3, False)
    (space, _), _, (t, i, _) = labels.continuations
    assert set(labels.contexts) == {(space,), (t, i)}


def test_a_cue_that_ends_in_a_space_is_rejoined(metaspace):
    """The label's token spans the join: the model is asked before it, and nothing differs from the label ' B'."""
    prompt = Prompt("{{ text[0] }}", "\n### Answer: ", ["A", "B"])
    encoded = Encoder(metaspace, prompt, 128).encode([Example("1", {"text": ("one",)})])
    a, b = metaspace.convert_tokens_to_ids(["▁A", "▁B"])
    assert encoded.labels == LabelTokens(("A", "B"), ((a,), (b,)), (("▁A",), ("▁B",)), 1)
    assert encoded.labels.table().splitlines()[1].endswith("no, 1 re-joined")
    assert metaspace.decode(encoded.prompts[0].token_ids).endswith("### Answer:")


def test_a_rejoined_space_may_be_a_token_of_its_own(stories):
    labels = find(stories.tokenizer, "\n### Answer: ", ["A", "B", "Tie"])
    assert labels.pieces == (("▁", "A"), ("▁B",), ("▁T", "i", "e"))
    assert labels.num_rejoined == 1


@pytest.mark.parametrize("pair", [("1", "10"), ("tie", "tied")])
def test_labels_that_share_their_first_token_are_read_whole(scratch, pair):
    labels = find(scratch.tokenizer, "\n### Answer\n", list(pair))
    short, long = labels.continuations
    assert long[: len(short)] == short
    assert labels.contexts == (long[:-1],)
    columns = re.split("  +", labels.table().splitlines()[2])
    assert columns == [repr(pair[1]), f"{long[0]} {long[1]}", f"{pair[1][:-1]!r} {pair[1][-1]!r}", "yes"]


@pytest.mark.parametrize("labels", [["A", "B", "Draw"], ["A", "B", "D raw"]])
def test_an_unknown_label_is_refused_with_the_table(word_level, labels):
    with pytest.raises(UserError, match=r"label 'D ?raw' is unknown to this tokenizer; use other") as error:
        find(word_level, "\n### Answer: ", labels)
    assert "'<unk>'" in str(error.value)
    assert len(str(error.value).splitlines()) == 1 + 1 + 3


def test_a_label_that_leaves_no_token_is_refused(word_level):
    with pytest.raises(UserError, match="label ' ' is unknown to this tokenizer"):
        find(word_level, "\n### Answer: ", ["A", " "])


def test_labels_that_collide_are_refused_with_the_table(lower_case):
    with pytest.raises(UserError, match="two labels have the same tokens; choose") as error:
        find(lower_case, "\n### Answer: ", ["A", "a", "b"])
    assert re.search(r"\n'A' +(\d+) .*\n'a' +\1 .*\n'b' ", str(error.value))


def test_labels_whose_tokens_depend_on_the_row_are_refused_with_the_fix(metaspace):
    assert find(metaspace, "", ["tie", "tied"], "one ", "two ").num_rejoined == 1
    last_forty = "one two three one two three and now two:"
    with pytest.raises(UserError, match="the labels' tokens depend on the row") as error:
        find(metaspace, "", ["tie", "tied"], "one ", f"{'left out ' * 5}{last_forty}")
    assert f" after ...{last_forty!r}; " in str(error.value)
    assert "; end prompt.answer_cue with a fixed line, such as '### Answer\\n'" in str(error.value)
    assert "\n" not in str(error.value)


def test_no_rows():
    with pytest.raises(UserError, match=r"^no row to find the label tokens in: the task .* check its files$"):
        find_label_tokens([], ["A", "B"], lambda text: [], lambda ids: [], None)


@pytest.mark.parametrize("labels", [["A", "B", "tie"], [" A", " B", " Tie"]])
def test_label_tokens_survive_their_file(scratch, tmp_path, labels):
    found = find(scratch.tokenizer, "\n### Answer:", labels)
    save_labels(tmp_path / "labels.json", found)
    assert load_labels(tmp_path / "labels.json") == found


def test_a_broken_file_of_label_tokens_is_one_line(tmp_path):
    path = tmp_path / "labels.json"
    uneven = '{"labels": ["A"], "continuations": [[1], [2]], "pieces": [["A"]], "num_rejoined": 0}'
    wrong = '{"labels": ["A"], "continuations": 1, "pieces": [], "num_rejoined": 0}'
    for content in ("", "[]", "{}", wrong, uneven):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match=re.escape(str(path))) as error:
            load_labels(path)
        assert "\n" not in str(error.value)
