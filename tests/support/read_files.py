"""A small sound file for each reader of data, and the call that reads it."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from nexttoken.data.csv_tables import read_columns, write_csv
from nexttoken.data.json_lines import json_rows, write_json_lines
from nexttoken.inference.retrieval import bm25
from nexttoken.inference.retrieval.bm25 import BM25
from nexttoken.inference.retrieval.corpus import Corpus
from nexttoken.inference.retrieval.recorded import read_recorded
from nexttoken.tasks.dialogue import Dialogue
from nexttoken.tasks.instruct import Instruct
from nexttoken.tasks.marks import Marks
from nexttoken.tasks.preference import CLASSES, Preference
from nexttoken.tasks.quiz import Quiz
from nexttoken.tasks.submission import validate_submission
from nexttoken.transforms.curation.marks import read_marks

Read = Callable[[Path], object]
Reader = tuple[Path, Read]  # the file, and the call that reads it, perhaps with others of its folder

QUIZZES = {  # a row of each format that is told by its keys
    "plain": {"id": "q1", "genre": "art", "question": "Which?", "options": ["a", "b", "c"], "answer": 1},
    "jcqa": {"q_id": 1, "question": "どれ?", **{f"choice{n}": f"語{n}" for n in range(5)}, "label": 2},
    "jaqket": {"qid": "Q1", "question": "何?", "answer_entity": "a", "answer_candidates": ["a", "b", "c"]},
    "instruction": {"id": 3, "instruction": "問題: Which?\n選択肢:\n1: x\n2: y", "input": "", "output": "2: y"},
}
INSTRUCTIONS = {
    "alpaca": {"id": "i1", "instruction": "Add.", "input": "1 and 2", "output": "3"},
    "dolly": {"instruction": "Add.", "context": "1 and 2", "response": "3", "category": "maths"},
    "self_instruct": {"id": "s1", "instruction": "Add.", "instances": [{"input": "1, 2", "output": "3"}]},
    "messages": {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
}
DIALOGUE = {
    "dialogue_id": "d",
    "turns": [{"speaker": "user", "utterance": "a"}, {"speaker": "system", "utterance": "b"}],
}
SHAREGPT = {"system": "s", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
MARK = {"id": "m1", "instruction": "Add.", "response": "3", "mark": 2, "input": "1, 2"}
TRUTH = {"id": "m1", "probs": [0.2] * 5}
PASSAGES = [{"title": "T", "text": "The lighthouse of Brell. Built in 1871."}, {"text": "Otters eat fish."}]


def sound_readers(folder: Path) -> dict[str, Reader]:
    """Write all files below `folder`; return each with the call that reads it."""
    return data_readers(folder / "data") | corpus_readers(folder / "corpora")


def data_readers(folder: Path) -> dict[str, Reader]:
    readers: dict[str, Reader] = {}

    def add(name: str, path: Path, read: Read) -> None:
        readers[name] = (path, read)

    preference = Preference(new_folder(folder / "preference"))
    pair = ["1", '["Which?",null]', '["a", "b"]', '["c"]', "1", "0", "0"]
    header = ["id", "prompt", "response_a", "response_b", *CLASSES]
    write_csv([header, pair, ["2", *pair[1:4], "0", "0", "1"]], preference.path("train.csv"))
    write_csv([header[:4], pair[:4]], preference.path("test.csv"))
    for name in ("sample_submission", "truth"):
        write_csv([["id", *CLASSES], ["1", "0.5", "0.25", "0.25"]], preference.path(f"{name}.csv"))
    for name, read in {
        "train": lambda _: preference.read("train"),
        "test": lambda _: preference.read("test"),
        "sample_submission": lambda _: preference.read("test"),
        "truth": lambda _: preference.truth(),
    }.items():
        add(f"preference {name}", preference.path(f"{name}.csv"), read)
    add(
        "submission",
        preference.path("sample_submission.csv"),
        lambda path: validate_submission(path, ["1"], ["id", *CLASSES]),
    )
    for name, row in QUIZZES.items():
        path = write_lines(
            folder / name / "train.jsonl", row, row | {key: "other" for key in ("id", "qid", "q_id") if key in row}
        )
        quiz = Quiz("quiz", path.parent, test_files=["train.jsonl"], skip_faulty=name == "plain")
        add(f"quiz {name}", path, lambda _, quiz=quiz: (quiz.read("train"), quiz.read("test")))
    for name, rows, form in (
        ("science", [["id", "prompt", *"ABCDE", "answer"], ["0", "q?", *"abcd", "", "B"]], "science_exam"),
        ("jmmlu", [["q?", "a", "b", "c", "d", "B"], ["r?", "a", "b", "c", "d", "A"]], "jmmlu"),
    ):
        write_csv(rows, path := new_folder(folder / name) / "train.csv")
        quiz = Quiz("quiz", path.parent, form if name == "jmmlu" else "auto", ["train.csv"], ["train.csv"])
        add(f"quiz {name}", path, lambda _, quiz=quiz: quiz.read("train"))
    for name, row in INSTRUCTIONS.items():
        path = write_lines(folder / name / "train.jsonl", row, {**row, "id": "other"})
        task = Instruct("x", path.parent, test_files=["train.jsonl"])
        add(f"instruct {name}", path, lambda _, task=task: (task.read("train"), task.read("test")))
    for name, row in {"dialogue": DIALOGUE, "sharegpt": SHAREGPT}.items():
        path = write_lines(folder / name / "train.jsonl", row)
        add(name, path, lambda _, folder=path.parent: Dialogue("x", folder).read("train"))
    write_lines(folder / "marks" / "truth.jsonl", TRUTH)
    marks = Marks(write_lines(folder / "marks" / "train.jsonl", MARK).parent)
    add("marks", folder / "marks" / "train.jsonl", lambda _: marks.read("train"))
    add("marks truth", folder / "marks" / "truth.jsonl", lambda _: marks.truth())
    write_csv([["id", "mark"], ["a", "3.5"]], path := folder / "marks.csv")
    add("mark table", path, read_marks)
    (path := folder / "table.tsv").write_text("id\ttext\na\tx\n")
    add("tsv", path, lambda path: read_columns(path, ["id"]))
    pd.DataFrame([MARK, MARK | {"id": "m2"}]).to_parquet(path := folder / "rows.parquet")
    add("parquet objects", path, lambda path: list(json_rows(path)))
    add("parquet cells", path, lambda path: read_columns(path, ["id"]))
    (path := folder / "array.json").write_text(json.dumps([MARK, TRUTH], indent=1))
    add("json array", path, lambda path: list(json_rows(path)))
    return readers


def corpus_readers(folder: Path) -> dict[str, Reader]:
    readers: dict[str, Reader] = {}
    table = pd.DataFrame(PASSAGES).fillna("")
    for ending in ("jsonl", "json", "csv", "tsv", "parquet", "txt"):
        path = new_folder(folder) / f"docs.{ending}"
        match ending:
            case "jsonl":
                write_json_lines(PASSAGES, path)
            case "json":
                path.write_text(json.dumps(PASSAGES))
            case "csv" | "tsv":
                table.to_csv(path, index=False, sep="," if ending == "csv" else "\t")
            case "parquet":
                table.to_parquet(path)
            case "txt":
                path.write_text("The lighthouse of Brell.\n\nOtters eat fish.\n")
        readers[f"corpus {ending}"] = (
            path,
            lambda path: [_encodable(one.text) for one in Corpus(str(path)).passages()],
        )
    path = write_lines(folder / "recorded.jsonl", {"query": "q", "passages": ["one", {"text": "two", "score": 2}]})
    readers["recorded passages"] = (path, read_recorded)
    retriever = BM25(str(folder / "docs.jsonl"), index_dir=str(folder / "index"))

    def search(_: Path | None = None) -> object:
        bm25._open.cache_clear()  # its files are mapped, and are about to change
        found = retriever.search(["lighthouse", "otters eat"])
        bm25._open.cache_clear()
        return found

    search()
    readers |= {f"index {path.name}": (path, search) for path in sorted((folder / "index").glob("*/*"))}
    return readers


def write_lines(path: Path, *rows: dict) -> Path:
    new_folder(path.parent)
    write_json_lines(rows, path)
    return path


def new_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _encodable(text: str) -> bytes:
    return text.encode()
