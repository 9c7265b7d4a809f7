"""A small sound file for each reader of the project, and the call that reads it."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

from nexttoken.commands.gate_answers import read_rows
from nexttoken.data.csv_tables import read_columns, write_csv
from nexttoken.data.folds import load_folds
from nexttoken.data.json_lines import json_rows, write_json_lines
from nexttoken.engine.journal import LabelJournal
from nexttoken.inference.retrieval import bm25
from nexttoken.inference.retrieval.bm25 import BM25
from nexttoken.inference.retrieval.corpus import Corpus
from nexttoken.inference.retrieval.recorded import read_recorded
from nexttoken.models import base_model
from nexttoken.models.hub import locate
from nexttoken.models.saved import load_labels
from nexttoken.prompts.token_cache import TokenCache
from nexttoken.prompts.token_file import KEY, TokenRow, write_rows
from nexttoken.runs.folder import FoldFolder
from nexttoken.runs.ledger import COLUMNS, read_ledger
from nexttoken.runs.read import read_runs
from nexttoken.runs.read_answers import out_of_fold, test_answers
from nexttoken.runs.records import read_gate
from nexttoken.tasks.dialogue import Dialogue
from nexttoken.tasks.instruct import Instruct
from nexttoken.tasks.marks import Marks
from nexttoken.tasks.preference import CLASSES, Preference
from nexttoken.tasks.quiz import Quiz
from nexttoken.tasks.submission import validate_submission
from nexttoken.transforms.curation.marks import read_marks
from support.finished_runs import write_finished_fold

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
RESULT = {
    "id": "q",
    "options": ["a", "b"],
    "correct": True,
    "seconds": 0.5,
    "tags": {"genre": "g"},
    "probs": [0.5, 0.5],
}


def sound_readers(folder: Path) -> dict[str, Reader]:
    """Write all files below `folder`; return each with the call that reads it."""
    return data_readers(folder / "data") | corpus_readers(folder / "corpora") | run_readers(folder / "run")


def data_readers(folder: Path) -> dict[str, Reader]:
    readers: dict[str, Reader] = {}

    def add(name: str, path: Path, read: Read) -> None:
        readers[name] = (path, read)

    preference = Preference(_new(folder / "preference"))
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
        path = _lines(
            folder / name / "train.jsonl", row, row | {key: "other" for key in ("id", "qid", "q_id") if key in row}
        )
        quiz = Quiz("quiz", path.parent, test_files=["train.jsonl"], skip_faulty=name == "plain")
        add(f"quiz {name}", path, lambda _, quiz=quiz: (quiz.read("train"), quiz.read("test")))
    for name, rows, form in (
        ("science", [["id", "prompt", *"ABCDE", "answer"], ["0", "q?", *"abcd", "", "B"]], "science_exam"),
        ("jmmlu", [["q?", "a", "b", "c", "d", "B"], ["r?", "a", "b", "c", "d", "A"]], "jmmlu"),
    ):
        write_csv(rows, path := _new(folder / name) / "train.csv")
        quiz = Quiz("quiz", path.parent, form if name == "jmmlu" else "auto", ["train.csv"], ["train.csv"])
        add(f"quiz {name}", path, lambda _, quiz=quiz: quiz.read("train"))
    for name, row in INSTRUCTIONS.items():
        path = _lines(folder / name / "train.jsonl", row, {**row, "id": "other"})
        task = Instruct("x", path.parent, test_files=["train.jsonl"])
        add(f"instruct {name}", path, lambda _, task=task: (task.read("train"), task.read("test")))
    for name, row in {"dialogue": DIALOGUE, "sharegpt": SHAREGPT}.items():
        path = _lines(folder / name / "train.jsonl", row)
        add(name, path, lambda _, folder=path.parent: Dialogue("x", folder).read("train"))
    _lines(folder / "marks" / "truth.jsonl", TRUTH)
    marks = Marks(_lines(folder / "marks" / "train.jsonl", MARK).parent)
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
        path = _new(folder) / f"docs.{ending}"
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
    path = _lines(folder / "recorded.jsonl", {"query": "q", "passages": ["one", {"text": "two", "score": 2}]})
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


def run_readers(folder: Path) -> dict[str, Reader]:
    fold = write_finished_fold(folder / "task" / "name", num_rows=4)
    run, records = fold.parent, FoldFolder(fold)
    rows = {"id": [f"0-{row}" for row in range(4)], "genre": "g", "num_options": 3, "seconds": 0.5}
    pd.DataFrame(rows).to_csv(fold / "rows.csv", index=False)
    pd.DataFrame({"step": [1, 2], "train_loss": [1.0, 0.9], "dev_log_loss": [1.1, None]}).to_csv(fold / "curve.csv")
    _lines(fold / "generated.jsonl", {"id": "a", "output": "b", "num_tokens": 2, "finished": True})
    (fold / "inference.json").write_text('{"temperature": 1.5}')
    labels = {"labels": ["A", "B"], "continuations": [[3], [4]], "pieces": [["A"], ["B"]], "num_rejoined": 0}
    (fold / "labels.json").write_text(json.dumps(labels))
    (run / "gate.json").write_text('{"min_top1": 0.6, "min_margin": 0.2, "temperature": 1.0, "keep_confident": true}')
    (run / "result.json").write_text(json.dumps([RESULT, RESULT | {"id": "r", "correct": None}]))
    (run / "environment.json").write_text('{"device": "cpu"}')
    ledger = ["2026-01-01T00:00:00+00:00", "a.csv", "output/x", "0 1", "1.0", "ab", "1.1", ""]
    write_csv([COLUMNS, ledger], run / "ledger.csv")

    def report(_: Path) -> object:
        return [(out_of_fold(run), test_answers(run)) for run in read_runs(run)]

    readers: dict[str, Reader] = {
        f"report {name}": (fold / name, report) for name in ("metrics.json", "oof.csv", "curve.csv", "rows.csv")
    }
    readers |= {f"report {name}": (run / name, report) for name in ("folds.csv", "result.json", "environment.json")}
    readers |= {
        "config": (fold / "config.yaml", lambda _: records.config()),
        "metrics": (fold / "metrics.json", lambda _: records.metrics()),
        "held-out ids": (fold / "oof.csv", lambda _: records.held_out_ids()),
        "generated": (fold / "generated.jsonl", lambda _: records.texts()),
        "state": (fold / "inference.json", lambda _: records.state()),
        "labels": (fold / "labels.json", load_labels),
        "folds": (run / "folds.csv", load_folds),
        "gate": (run / "gate.json", read_gate),
        "ledger": (run / "ledger.csv", read_ledger),
        "gate rows": (_gate_rows(run / "gate.csv"), read_rows),
    }
    return readers | _model_readers(_new(folder / "model"), folder)


def _model_readers(model: Path, folder: Path) -> dict[str, Reader]:
    from safetensors.numpy import save_file

    save_file({"weight": np.arange(6, dtype=np.float32).reshape(2, 3)}, model / "model.safetensors")
    (model / "base.json").write_text('{"name": "n", "weights": "w", "tokenizer": "t"}')
    (model / "config.json").write_text("{}")
    journal, identity = folder / "journal.jsonl", {"made_by": "x"}
    with LabelJournal(journal, identity) as answers:
        prompts = [SimpleNamespace(id=name, num_options=2, token_ids=np.arange(3)) for name in "ab"]
        for prompt in prompts:
            answers.save([prompt], np.array([[0.5, 0.5]]), np.array([0.1]))
    tokens, keys = folder / "x.tokens", [bytes([number]) * KEY.itemsize for number in range(2)]
    with tokens.open("wb") as file:
        write_rows(file, ((key, TokenRow(np.arange(4, dtype=np.int32), "a text")) for key in keys))

    def read_tokens(path: Path) -> list[str | None]:
        rows: list[TokenRow | None] = [None, None]
        TokenCache(folder, "name")._fill(rows, np.frombuffer(b"".join(keys), KEY), path)
        return [row and row.text() for row in rows]  # type: ignore[operator]

    return {
        "journal": (journal, lambda path: LabelJournal(path, identity)),
        "base": (model / "base.json", lambda path: base_model.read_base(path.parent)),
        "model folder": (model / "config.json", lambda path: locate(str(path.parent))),
        "token cache": (tokens, read_tokens),
    }


def _gate_rows(path: Path) -> Path:
    columns = {"id": ["a", "b"], "fold_mark": "m", "fold": 0, "group": [0, 1], "label": [0, 1], "found": True}
    seconds = dict.fromkeys(("first_seconds", "search_seconds", "second_seconds"), 0.5)
    return _csv(path, columns | seconds | dict.fromkeys(("first_p_0", "first_p_1", "second_p_0", "second_p_1"), 0.5))


def _csv(path: Path, columns: dict) -> Path:
    pd.DataFrame(columns).to_csv(path, index=False, quoting=csv.QUOTE_MINIMAL)
    return path


def _lines(path: Path, *rows: dict) -> Path:
    _new(path.parent)
    write_json_lines(rows, path)
    return path


def _new(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _encodable(text: str) -> bytes:
    return text.encode()
