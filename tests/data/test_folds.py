import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexttoken.data.folds import GroupedStratified, load_folds, save_folds, values_of
from nexttoken.data.near_duplicates import group_ids, normalise
from nexttoken.errors import UserError
from nexttoken.types import Example


@pytest.fixture(scope="module")
def arena(shared_dir: Path) -> pd.DataFrame:
    """arena-mini's prompts as texts, with their labels."""
    table = pd.read_csv(shared_dir / "data/arena-mini/train.csv", dtype=str, keep_default_na=False)
    winners = table[["winner_model_a", "winner_model_b", "winner_tie"]].astype(int).to_numpy()
    texts = ["\n".join(turn or "" for turn in json.loads(prompt)) for prompt in table["prompt"]]
    return pd.DataFrame({"id": table["id"], "text": texts, "label": winners.argmax(axis=1)})


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


def test_labels_that_are_seen_once_or_twice_are_divided_by_their_groups() -> None:
    """As of thousands of classes: no label has a row for every part."""
    split, groups = GroupedStratified(num_folds=5), np.repeat(np.arange(40), 2)
    folds = split.assign(np.arange(80) // 3, groups)
    assert np.bincount(folds).tolist() == [16] * 5
    assert all(len(set(folds[groups == group])) == 1 for group in range(40))
    assert split.dev(np.arange(80), groups).sum() == 8


def test_too_few_groups_and_impossible_values_are_refused() -> None:
    with pytest.raises(UserError, match=r"5 parts need .* found 3 groups"):
        GroupedStratified().assign(np.array([0, 1, 2] * 4), np.array([0, 1, 2] * 4))
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
    with pytest.raises(UserError, match=r"assigns 1 ids to other folds .*: 007; restore"):
        save_folds(type(folds)(folds.ids[1:], folds.groups[1:], folds.folds[1:]), path)
    with pytest.raises(UserError, match="assigns 6 ids to other folds"):
        save_folds(type(folds)(folds.ids, folds.groups, 1 - folds.folds), path)


@pytest.mark.parametrize("content", ["", "id,fold\n1,0\n", "id,group,fold\n1,x,0\n"])
def test_a_damaged_folds_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "folds.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=r"folds\.csv is not a table of folds"):
        load_folds(path)


@given(st.lists(st.sampled_from("abcd"), min_size=2, max_size=40), st.randoms())
@settings(max_examples=50, deadline=None)
def test_a_column_gives_a_fold_to_each_of_its_values(values: list[str], random) -> None:
    split, texts, labels = GroupedStratified(None, column="rule"), ["same text"] * len(values), np.zeros(len(values))
    if len(set(values)) == 1:
        with pytest.raises(UserError, match="rule has 1 values in the training rows, too few for 2 folds"):
            split.folds([], texts, labels, values)
        return
    folds = split.folds(["x"] * len(values), texts, labels, values)
    order = sorted(set(values))
    assert [order[fold] for fold in folds.folds] == values
    assert folds.number == len(order)
    assert set(folds.groups.tolist()) == {0}  # texts still decide about the dev part


def test_fewer_folds_than_values_of_a_column_keep_each_value_whole() -> None:
    values, labels = [*"aabbccddee"] * 5, np.array([0, 1] * 25)
    folds = GroupedStratified(2, column="rule").folds(values, values, labels, values).folds
    assert {len(set(folds[[one == value for one in values]].tolist())) for value in "abcde"} == {1}
    assert set(folds.tolist()) == {0, 1}
    with pytest.raises(UserError, match="too few for 6 folds"):
        GroupedStratified(6, column="rule").folds(values, values, labels, values)


def test_the_number_of_folds_is_counted_only_by_a_column() -> None:
    with pytest.raises(UserError, match=r"split\.num_folds is null, expected a number; only split=by_column"):
        GroupedStratified(None)


def test_a_column_is_a_field_or_a_tag() -> None:
    examples = [Example("1", {"rule": ("a", "b")}, tags={"genre": "c"})]
    assert values_of(examples, "rule") == ["a\nb"]
    assert values_of(examples, "genre") == ["c"]
    with pytest.raises(UserError, match=r"split.column=rul is no field and no tag of row 1; did you mean 'rule'\?"):
        values_of(examples, "rul")
