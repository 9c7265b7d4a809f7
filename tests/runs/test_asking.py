"""Ways of asking have names of their own, and the score of a run stands only beside its own way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexttoken.runs.asking import describe
from nexttoken.runs.config import Changes, asked_otherwise

ONCE = {"_target_": "nexttoken.inference.Once"}
BM25 = {"_target_": "nexttoken.inference.retrieval.bm25.BM25", "corpus": "c", "num_hits": 5, "index_dir": "a"}
OWN = {
    "inference": ONCE,
    "retriever": {"_target_": "x.Nothing"},
    "generation": {"temperature": 0.0},
    "fit": {"seed": 1},
}


@pytest.mark.parametrize(
    ("config", "changes", "words"),
    [
        ({}, Changes(), ""),
        ({"fit": {"seed": 2}, "batch_tokens": 7, "model": {"name_or_path": "moved"}}, Changes(), ""),
        ({"generation": {"temperature": 0.7}}, Changes(), "temperature-0.7"),
        ({"retriever": BM25}, Changes(), "BM25"),
        ({"inference": {"_target_": "a.Demonstrations", "retriever": BM25}, "retriever": BM25}, Changes(),
         "Demonstrations BM25"),
        ({}, Changes(fold=2), "fold-2"),
        ({}, Changes(engine={"_target_": "nexttoken.engine.answerers.load_vllm_writer"}), "load_vllm_writer"),
        ({"inference": {**ONCE, "k": 3}}, Changes(), "k-3"),
    ],
)  # fmt: skip
def test_a_way_of_asking_is_described_by_what_differs(config: dict, changes: Changes, words: str) -> None:
    assert describe(asked_otherwise(OWN, OWN | config, changes)) == words


def test_where_an_index_lies_is_no_way_of_asking() -> None:
    moved = {"retriever": BM25 | {"index_dir": "b"}}
    assert asked_otherwise(OWN | {"retriever": BM25}, OWN | moved, Changes()) == {}


VALUES = st.fixed_dictionaries({"temperature": st.floats(0, 2), "seed": st.integers(0, 3), "stop": st.just(["x"])})


@given(VALUES, VALUES)
def test_two_ways_are_the_same_only_with_the_same_settings(one: dict, other: dict) -> None:
    asked = [asked_otherwise(OWN, OWN | {"generation": values}, Changes()) for values in (one, other)]
    assert (asked[0] == asked[1]) == (one == other)
