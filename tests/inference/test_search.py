"""From examples to queries to passages: who asks what, what is kept in which order, and how it is counted."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from nexttoken.errors import UserError
from nexttoken.inference.retrieval.bm25 import BM25
from nexttoken.inference.retrieval.search import Nothing, Search
from nexttoken.types import Example, Passage


@dataclass
class Book:
    """A retriever whose answers a test writes, and which remembers what it was asked."""

    answers: dict[str, list[str]]
    asked: list[list[str]] = field(default_factory=list)

    def search(self, queries: Sequence[str]) -> list[list[Passage]]:
        self.asked.append(list(queries))
        return [[Passage(text) for text in self.answers.get(query, [])] for query in queries]


def quiz(question: str, *options: str) -> Example:
    return Example(f"id of {question}", {"question": (question,), "options": options}, 0, len(options), {"genre": "g"})


def passages(found) -> list[tuple[str, ...]]:
    return [example.fields["passages"] for example in found.examples]


def test_equal_questions_are_asked_once_and_rows_stay_as_they_are():
    book = Book({"a": ["1", "2", "3", "4"], "b": ["5"]})
    examples = [quiz("a", "x", "y"), quiz("b"), quiz("a", "z"), quiz("unknown")]
    found = Search(book).find(examples)
    assert book.asked == [["a", "b", "unknown"]]
    assert passages(found) == [("1", "2", "3"), ("5",), ("1", "2", "3"), ()]
    assert found.counts == {"num_queries": 3, "num_without_hits": 1, "num_failed_queries": 0}
    assert [{**example.fields, "passages": ()} for example in found.examples] == [
        {**example.fields, "passages": ()} for example in examples
    ]
    assert [(row.id, row.label, row.num_options, row.tags) for row in found.examples] == [
        (row.id, row.label, row.num_options, row.tags) for row in examples
    ]
    assert "passages" not in examples[0].fields


def test_options_hits_take_turns_and_a_text_counts_once():
    book = Book({"q x": ["1", "2", "3"], "q y": ["1", "4"], "q z": ["5"]})
    (example,) = Search(book, per_option=True, num_passages=4).find([quiz("q", "x", "y", "z")]).examples
    assert book.asked == [["q x", "q y", "q z"]]
    assert example.fields["passages"] == ("1", "5", "2", "4")


def test_absent_or_equal_options_are_not_asked_for():
    search = Search(Nothing(), per_option=True)
    assert search.queries(quiz("q", "x", "", "x", " ")) == ["q x"]
    assert search.queries(quiz("q")) == ["q"]
    assert search.queries(quiz(" ", "x")) == ["x"]
    assert search.queries(quiz("")) == []


def test_passages_of_before_are_replaced():
    first = Search(Book({"a": ["old"]})).find([quiz("a")]).examples
    assert passages(Search(Book({"a": ["new"]})).find(first)) == [("new",)]
    assert passages(Search(Nothing()).find(first)) == [()]


def test_time_is_shared_by_queries():
    found = Search(Book({}), per_option=True).find([quiz("a", "x", "y", "z"), quiz("b"), quiz("")])
    assert found.seconds.shape == (3,)
    np.testing.assert_allclose(found.seconds, found.seconds.sum() * np.array([0.75, 0.25, 0.0]))
    assert Search(Book({})).find([quiz(""), quiz(" ")]).seconds.tolist()[0] >= 0


def test_no_examples_and_no_queries_ask_nothing():
    book = Book({})
    found = Search(book).find([])
    assert (found.examples, found.seconds.tolist()) == ([], [])
    assert found.counts == {"num_queries": 0, "num_without_hits": 0, "num_failed_queries": 0}
    assert Search(book).find([quiz("")]).counts["num_without_hits"] == 1
    assert book.asked == []


def test_what_cannot_be_searched_for_is_one_line():
    with pytest.raises(UserError, match="row 7 has no question to search for, only prompt, response_a"):
        Search(Nothing()).find([Example("7", {"prompt": ("p",), "response_a": ("a",)})])
    with pytest.raises(UserError, match="num_passages=0, expected 1 or more"):
        Search(Nothing(), num_passages=0)


def test_search_over_files(tmp_path):
    (tmp_path / "corpus.txt").write_text("Brell has a lighthouse.\n\nOtters sleep afloat.")
    search = Search(BM25(str(tmp_path / "corpus.txt"), index_dir=str(tmp_path / "index")), per_option=True)
    found = search.find([quiz("Who sleeps?", "otters", "lizards"), quiz("何", "海")])
    assert passages(found) == [("Otters sleep afloat.",), ()]
    assert found.counts == {"num_queries": 3, "num_without_hits": 1, "num_failed_queries": 0}


@pytest.mark.parametrize("name", ["none", "bm25", "dense", "recorded", "web"])
def test_every_shipped_retriever_is_built(repository, tmp_path, monkeypatch, name):
    """The values of the file reach the class; a missing extra is said by name."""
    monkeypatch.setenv("GOOGLE_API_KEY", "k")
    monkeypatch.setenv("GOOGLE_SEARCH_ENGINE_ID", "e")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.txt").write_text("text")
    (tmp_path / "passages.jsonl").write_text("")
    with initialize_config_dir(str(repository / "conf"), version_base=None):
        cfg = compose(overrides=[f"+retriever={name}", f"+input_dir={tmp_path}", f"+output_dir={tmp_path}"])
    package = {"dense": "sentence_transformers", "web": "googleapiclient"}.get(name)
    if package:
        pytest.importorskip(package)
    retriever = instantiate(cfg.retriever, _convert_="all")
    assert {f"+{key}": value for key, value in cfg.retriever.items() if key != "_target_"} == {
        f"+{key}": getattr(retriever, key) for key in cfg.retriever if key != "_target_"
    }
