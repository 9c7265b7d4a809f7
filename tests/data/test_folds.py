import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexttoken.data.folds import GroupedStratified, group_ids, load_folds, normalise, save_folds
from nexttoken.errors import UserError

PROMPT = (
    "Please explain to a curious child of ten years how a rainbow forms after the rain, why its colours always come in "
    "the same order, and where to stand to see one"
)


@pytest.fixture(scope="module")
def words() -> list[str]:
    rng = np.random.default_rng(0)
    return ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), rng.integers(2, 10))) for _ in range(2000)]


@pytest.fixture(scope="module")
def arena(shared_dir: Path) -> pd.DataFrame:
    """arena-mini's prompts as texts, with their labels."""
    table = pd.read_csv(shared_dir / "data/arena-mini/train.csv", dtype=str, keep_default_na=False)
    winners = table[["winner_model_a", "winner_model_b", "winner_tie"]].astype(int).to_numpy()
    texts = ["\n".join(turn or "" for turn in json.loads(prompt)) for prompt in table["prompt"]]
    return pd.DataFrame({"id": table["id"], "text": texts, "label": winners.argmax(axis=1)})


def test_texts_equal_after_normalisation_share_a_group() -> None:
    texts = ["What is AI?", "what  is ai", "Ｗｈａｔ is AI ！", "\ufeffWhat is\nAI...", "What is BI?"]
    assert group_ids(texts).tolist() == [0, 0, 0, 0, 1]
    assert normalise("Ｗｈａｔ is AI ！") == "what is ai"


def test_empty_texts_are_one_group_and_marks_alone_are_texts() -> None:
    groups = group_ids(["", "  \n", "???", "🙂", "\ud83d", "", "C", "C++", "C#"])
    assert groups[0] == groups[1] == groups[5]
    assert len(set(groups.tolist())) == 7
    assert group_ids([]).shape == (0,)


def test_short_texts_are_grouped_by_equality_only() -> None:
    texts = [
        "What is 12 + 13?",
        "What is 12 + 14?",
        "What is 12 - 13?",
        "Capital of Mali",
        "Capital of Malta",
        "日本は?",
    ]
    assert len(set(group_ids(texts).tolist())) == len(texts)


@pytest.mark.parametrize("position", range(len(PROMPT.split())))
def test_one_changed_word_stays_in_the_group(position: int, words: list[str]) -> None:
    changed = PROMPT.split()
    assert len(changed) >= 30
    changed[position] = "bicycle"
    other = " ".join(words[:30])
    first, second, third = group_ids([PROMPT, " ".join(changed), other])
    assert first == second != third


def test_every_planted_near_duplicate_is_found_among_many(words: list[str]) -> None:
    rng = np.random.default_rng(1)
    originals = [rng.choice(words, 40).tolist() for _ in range(300)]
    copies = [[*text[:20], "changed", *text[21:]] for text in originals]
    groups = group_ids([" ".join(text) for text in originals + copies])
    assert (groups[:300] == groups[300:]).all()
    assert len(set(groups.tolist())) == 300


def test_similarity_chains_and_a_shared_half_is_not_a_duplicate(words: list[str]) -> None:
    start, middle, end = words[:60], words[60:66] + words[6:60], words[60:66] + words[6:54] + words[66:72]
    half = words[:30] + words[100:130]
    groups = group_ids([" ".join(text) for text in (start, middle, end, half)])
    assert groups[0] == groups[1] == groups[2] != groups[3]
    assert len(set(group_ids([" ".join(start), " ".join(end)]).tolist())) == 2  # only the middle joins them


def test_groups_do_not_depend_on_row_order_or_process(words: list[str]) -> None:
    rng = np.random.default_rng(2)
    texts = [" ".join(rng.choice(words, 12)) for _ in range(50)] + [PROMPT, PROMPT + " please", ""]
    order = rng.permutation(len(texts))
    groups = group_ids(texts)
    assert (group_ids([texts[index] for index in order]) == groups[order]).all()

    code = (
        "import json,sys; from nexttoken.data.folds import group_ids; print(group_ids(json.load(sys.stdin)).tolist())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    fresh = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(texts),
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(fresh.stdout) == groups.tolist()


def test_grouping_is_fast_with_long_and_repeated_texts(words: list[str]) -> None:
    rng = np.random.default_rng(3)
    template = [f"{PROMPT}, about topic number {number}" for number in range(1500)]  # one dense cluster
    texts = [" ".join(rng.choice(words, 60)) for _ in range(1500)] + template + ["word " * 40_000] * 200
    began = time.perf_counter()
    groups = group_ids(texts)
    assert time.perf_counter() - began < 20  # 57,000 rows in a minute, with room for a busy machine
    assert len(set(groups[1500:3000].tolist())) == 1


@st.composite
def labelled_groups(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    num_groups = draw(st.integers(12, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    groups = np.concatenate([np.arange(num_groups), rng.integers(0, num_groups, draw(st.integers(0, 100)))])
    return rng.permutation(np.resize([0, 1, 2], len(groups))), rng.permutation(groups)


@given(labelled_groups(), st.integers(2, 4), st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_no_group_crosses_and_row_order_does_not_matter(
    rows: tuple[np.ndarray, np.ndarray], num_folds: int, seed: int
) -> None:
    labels, groups = rows
    split = GroupedStratified(num_folds=num_folds, seed=seed)
    folds = split.assign(labels, groups)
    assert set(folds.tolist()) == set(range(num_folds))  # every row has one fold, every fold has rows
    for group in np.unique(groups):
        assert len(set(folds[groups == group].tolist())) == 1
    order = np.random.default_rng(seed).permutation(len(labels))
    assert (split.assign(labels[order], groups[order]) == folds[order]).all()


def test_arena_mini_folds_are_stratified_grouped_and_reproducible(arena: pd.DataFrame) -> None:
    split = GroupedStratified()
    labels = arena["label"].to_numpy()
    folds = split.folds(arena["id"], arena["text"], labels)
    assert pd.Series(folds.folds).groupby(arena["text"].map(normalise).to_numpy()).nunique().max() == 1
    assert pd.Series(folds.folds).groupby(folds.groups).nunique().max() == 1
    assert np.bincount(folds.folds) == pytest.approx(len(labels) / 5, rel=0.03)
    overall = np.bincount(labels) / len(labels)
    for fold in range(5):
        held_out = labels[folds.folds == fold]
        assert np.bincount(held_out) / len(held_out) == pytest.approx(overall, abs=0.02)

    shuffled = arena.sample(frac=1, random_state=0)
    again = split.folds(shuffled["id"], shuffled["text"], shuffled["label"].to_numpy())
    assert dict(zip(again.ids, again.folds, strict=True)) == dict(zip(folds.ids, folds.folds, strict=True))
    assert (GroupedStratified(seed=1).assign(labels, folds.groups) != folds.folds).any()


def test_dev_part_is_grouped_and_of_the_asked_size(arena: pd.DataFrame) -> None:
    labels, groups = arena["label"].to_numpy(), group_ids(arena["text"])
    dev = GroupedStratified(dev_fraction=0.1).dev(labels, groups)
    assert dev.mean() == pytest.approx(0.1, abs=0.01)
    assert not set(groups[dev].tolist()) & set(groups[~dev].tolist())
    assert (np.bincount(labels[dev]) / dev.sum()).tolist() == pytest.approx([0.395, 0.402, 0.202], abs=0.03)
    assert not GroupedStratified(dev_fraction=0).dev(labels, groups).any()


def test_too_few_groups_and_impossible_values_are_refused() -> None:
    with pytest.raises(UserError, match=r"5 parts need .* found 3 groups"):
        GroupedStratified().assign(np.array([0, 1, 2] * 4), np.array([0, 1, 2] * 4))
    with pytest.raises(UserError, match="found 4 groups and 1 rows"):
        GroupedStratified(num_folds=2).assign(np.arange(4), np.arange(4))
    with pytest.raises(UserError, match="num_folds is 1"):
        GroupedStratified(num_folds=1)
    with pytest.raises(UserError, match=r"dev_fraction is 0\.9"):
        GroupedStratified(dev_fraction=0.9)


def test_saved_folds_come_back_and_a_change_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "folds.csv"
    ids = ["007", "7", "9007199254740993", "a,b", "NA", "\ud800"]
    texts, labels = [f"question {number}" for number in range(6)], np.array([0, 0, 0, 1, 1, 1])
    folds = GroupedStratified(num_folds=2).folds(ids, texts, labels)
    save_folds(folds, path)
    assert path.read_text(encoding="utf-8", errors="surrogatepass").startswith("id,group,fold\n007,")
    loaded = load_folds(path)
    assert loaded.ids == tuple(ids)
    assert loaded.groups.tolist() == folds.groups.tolist()
    assert loaded.folds.tolist() == folds.folds.tolist()

    written = path.read_bytes()
    save_folds(GroupedStratified(num_folds=2).folds(ids[::-1], texts[::-1], labels[::-1]), path)  # order is no change
    assert path.read_bytes() == written
    with pytest.raises(UserError, match=r"gives 1 ids another fold .*: 007; restore"):
        save_folds(type(folds)(folds.ids[1:], folds.groups[1:], folds.folds[1:]), path)
    with pytest.raises(UserError, match="gives 6 ids another fold"):
        save_folds(type(folds)(folds.ids, folds.groups, 1 - folds.folds), path)


@pytest.mark.parametrize("content", ["", "id,fold\n1,0\n", "id,group,fold\n1,x,0\n"])
def test_a_damaged_folds_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "folds.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=r"folds\.csv is not a table of folds"):
        load_folds(path)
