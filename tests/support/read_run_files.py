"""A small sound file for each reader of runs and models, and the call that reads it."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

from nexttoken.commands.gate_answers import read_rows
from nexttoken.data.csv_tables import write_csv
from nexttoken.data.folds import load_folds
from nexttoken.engine.journal import LabelJournal
from nexttoken.models import base_model
from nexttoken.models.hub import locate
from nexttoken.models.load import load_config, load_tokenizer
from nexttoken.models.saved import load_labels
from nexttoken.prompts.token_cache import TokenCache
from nexttoken.prompts.token_file import KEY, TokenRow, write_rows
from nexttoken.runs.folder import FoldFolder
from nexttoken.runs.ledger import COLUMNS, read_ledger
from nexttoken.runs.read import read_runs
from nexttoken.runs.read_answers import out_of_fold, test_answers
from nexttoken.runs.records import read_gate
from nexttoken.settings import ModelSettings
from support.finished_runs import write_finished_fold
from support.read_files import Reader, new_folder, write_lines

RESULT = {
    "id": "q",
    "options": ["a", "b"],
    "correct": True,
    "seconds": 0.5,
    "tags": {"genre": "g"},
    "probs": [0.5, 0.5],
}


def run_readers(folder: Path) -> dict[str, Reader]:
    fold = write_finished_fold(folder / "task" / "name", num_rows=4)
    run, records = fold.parent, FoldFolder(fold)
    rows = {"id": [f"0-{row}" for row in range(4)], "genre": "g", "num_options": 3, "seconds": 0.5}
    pd.DataFrame(rows).to_csv(fold / "rows.csv", index=False)
    pd.DataFrame({"step": [1, 2], "train_loss": [1.0, 0.9], "dev_log_loss": [1.1, None]}).to_csv(fold / "curve.csv")
    write_lines(fold / "generated.jsonl", {"id": "a", "output": "b", "num_tokens": 2, "finished": True})
    (fold / "inference.json").write_text('{"temperature": 1.5}')
    labels = {"labels": ["A", "B"], "continuations": [[3], [4]], "pieces": [["A"], ["B"]], "num_rejoined": 0}
    (fold / "labels.json").write_text(json.dumps(labels))
    (run / "gate.json").write_text('{"min_top1": 0.6, "min_margin": 0.2, "temperature": 1.0, "keep_confident": true}')
    (run / "a.result.json").write_text(json.dumps([RESULT, RESULT | {"id": "r", "correct": None}]))
    (run / "a.environment.json").write_text('{"device": "cpu"}')
    ledger = ["2026-01-01T00:00:00+00:00", "a.csv", "task/name", "0", "1.0", "ab", "1.1", ""]
    write_csv([COLUMNS, ledger], run / "ledger.csv")

    def report(_: Path) -> object:
        return [(out_of_fold(found), test_answers(found, found.folder / "ledger.csv")) for found in read_runs(run)]

    readers: dict[str, Reader] = {
        f"report {name}": (fold / name, report) for name in ("metrics.json", "oof.csv", "curve.csv", "rows.csv")
    }
    readers |= {f"report {name}": (run / name, report) for name in ("folds.csv", "a.result.json", "a.environment.json")}
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
    return readers | _model_readers(new_folder(folder / "model"), folder)


def _model_readers(model: Path, folder: Path) -> dict[str, Reader]:
    (model / "base.json").write_text('{"name": "n", "weights": "w", "tokenizer": "t"}')
    (model / "config.json").write_text("{}")
    journal, identity = folder / "journal.jsonl", {"made_by": "x"}
    with LabelJournal(journal, identity) as answers:
        prompts = [SimpleNamespace(id=name, num_options=2, branches=(), token_ids=np.arange(3)) for name in "ab"]
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


def base_readers(folder: Path) -> dict[str, Reader]:
    """The readers of a model's folder, as `save_small_base` writes it."""
    settings = ModelSettings(name_or_path=str(folder))
    return {
        "weights": (folder / "model.safetensors", lambda _: base_model.fingerprint(folder)),
        "model config": (folder / "config.json", lambda _: load_config(settings)),
        "tokenizer": (folder / "tokenizer.json", lambda _: load_tokenizer(settings, ())),
        "tokenizer config": (folder / "tokenizer_config.json", lambda _: load_tokenizer(settings, ())),
    }


def _gate_rows(path: Path) -> Path:
    columns = {"id": ["a", "b"], "fold_mark": "m", "fold": 0, "group": [0, 1], "label": [0, 1], "found": True}
    seconds = dict.fromkeys(("first_seconds", "search_seconds", "second_seconds", "first_tokens", "second_tokens"), 0.5)
    return _csv(path, columns | seconds | dict.fromkeys(("first_p_0", "first_p_1", "second_p_0", "second_p_1"), 0.5))


def _csv(path: Path, columns: dict) -> Path:
    pd.DataFrame(columns).to_csv(path, index=False, quoting=csv.QUOTE_MINIMAL)
    return path
