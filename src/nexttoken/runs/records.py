"""The files of a run folder, each with its writer and its reader; a killed process leaves no partial file."""

import csv
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from nexttoken.data.csv_tables import read_columns
from nexttoken.data.files import RETRAIN, hash_text, read_json, read_yaml, to_yaml, whole_file, write_json
from nexttoken.data.json_lines import json_rows, write_json_lines
from nexttoken.data.row_faults import Faults, Place, RowFault, is_whole
from nexttoken.errors import UserError
from nexttoken.inference.gate import Gate
from nexttoken.runs import seals
from nexttoken.settings import ALL
from nexttoken.tasks.solved_examples import SolvedRow
from nexttoken.types import AnswerLosses, Example, LabelPredictions, TextPredictions

OUTPUT = ("id", "output", "num_tokens", "finished")  # the keys of a line in generated.jsonl


def fold_name(number: int | str) -> str:
    """The name of a fold's folder, `fold0`, or of the final model's: `all`."""
    return ALL if number == ALL else f"fold{number}"


@dataclass(frozen=True)
class FoldRecords:
    """The files of one fold, in the folder `path`."""

    path: Path

    @property
    def is_final(self) -> bool:
        """True for a final model on all rows (fold=all), which has no held-out rows and no scores."""
        return self.path.name == ALL

    @property
    def config_path(self) -> Path:
        return self.path / "config.yaml"

    def claim(self, config: Mapping[str, Any], data_hash: str) -> None:
        """Write data.sha256 and config.yaml; checkpoints of the same run stay, so that training continues from them."""
        for path, text in ((self.path / "data.sha256", data_hash), (self.config_path, to_yaml(config))):
            with whole_file(path) as part:
                part.write_text(text, encoding="utf-8")

    def config(self) -> dict[str, Any]:
        """The resolved configuration of this fold. Raises UserError where config.yaml is missing or broken."""
        return read_yaml(self.config_path)

    def has_data(self, data_hash: str) -> bool:
        """True where this fold was trained on the examples with this hash (`hash_learnt`)."""
        path = self.path / "data.sha256"
        return path.is_file() and path.read_bytes() == data_hash.encode()

    def has_rows(self, data_hash: str) -> bool:
        """True where these are the training file's rows, whatever else the fold learnt (`hash_examples`)."""
        path = self.path / "data.sha256"
        return path.is_file() and path.read_bytes().split(b" ")[0] == data_hash.encode()

    def save_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write metrics.json with the seal, the last file of a fold: a fold that has it is finished."""
        write_json({**metrics, seals.KEY: seals.seal(self.path, metrics)}, self.path / "metrics.json")

    def metrics(self) -> dict[str, Any]:
        """Read metrics.json. Raises UserError where it lacks the scores, they are no numbers, or of another fold.

        A final model's has no scores.
        """
        path = self.path / "metrics.json"
        metrics = read_json(path)
        scores: tuple[tuple[str, int, Any], ...] = (("log_loss", 0, (int, float)), ("num_examples", 1, (int,)))
        for key, lowest, kinds in () if self.is_final else scores:
            value: Any = metrics.get(key)
            if type(value) not in kinds or not lowest <= value < math.inf:
                expected = "a number of at least 0" if lowest == 0 else "a whole number of at least 1"
                raise UserError(f"{path} has {key}={value!r}, expected {expected}; {RETRAIN}")
        if (number := metrics.get("fold")) is not None and self.path.name != fold_name(number):
            raise UserError(f"{path} is of fold {number}: {self.path} is a copy; remove it, and train the fold itself")
        return metrics

    def refuse_altered(self, names: Collection[str] = seals.RECORDS) -> dict[str, Any]:
        """Return `metrics`. Raises UserError where a file of those `names` is not as the finished fold sealed it."""
        metrics = self.metrics()
        seals.refuse_altered(self.path, metrics, names)
        return metrics

    @property
    def finished_at(self) -> float:
        """The time at which the finished fold was saved, in seconds as of time.time()."""
        return (self.path / "metrics.json").stat().st_mtime

    @property
    def training_id(self) -> str:
        """A hash of metrics.json, which holds the seconds: it changes whenever the fold is trained again."""
        return hash_text((self.path / "metrics.json").read_text(encoding="utf-8"))[:16]

    @property
    def training(self) -> str:
        """The fold's folder and its `training_id`."""
        return f"{self.path.resolve()} {self.training_id}"

    def save_oof(self, predictions: LabelPredictions, labels: np.ndarray, fold: int, classes: Sequence[str]) -> None:
        """Write oof.csv: id, fold, label, then one column per class in full precision."""
        probs = dict(zip(classes, predictions.probs.T, strict=True))
        _write_table({"id": predictions.ids, "fold": fold, "label": labels} | probs, self.path / "oof.csv")

    def save_losses(self, losses: AnswerLosses, examples: Sequence[Example], fold: int) -> None:
        """Write oof.csv of open answers: id, row (the id in folds.csv), fold, nll, num_tokens, num_characters."""
        ids = {example.id for example in examples}
        rows = [one if one in ids else one.rpartition("#")[0] for one in losses.ids]  # `id#n`: a window of a dialogue
        columns = {"id": losses.ids, "row": rows, "fold": fold, "nll": losses.nll}
        counts = {"num_tokens": losses.num_tokens, "num_characters": losses.num_characters}
        _write_table(columns | counts, self.path / "oof.csv")

    def held_out_ids(self) -> list[str]:
        """The ids in oof.csv as folds.csv has them, each once, in order; none of a final model.

        Raises UserError where it is no such table.
        """
        if self.is_final:
            return []
        table = read_columns(self.path / "oof.csv", ["id"], RETRAIN)
        return list(dict.fromkeys(table.get("row", table["id"])))

    def save_rows(self, examples: Sequence[Example], predictions: LabelPredictions) -> None:
        """Write rows.csv: id, tags (genre, file), number of options, and the other columns of the predictions."""
        names = dict.fromkeys(name for example in examples for name in example.tags)
        tags = {name: [example.tags.get(name, "") for example in examples] for name in names}
        sizes = [example.num_options or predictions.probs.shape[1] for example in examples]
        columns = {**tags, "id": predictions.ids, "num_options": sizes, **predictions.columns}
        columns = {"id": columns.pop("id"), **columns}  # a table may have a tag called id
        _write_table(columns, self.path / "rows.csv")

    def save_texts(self, texts: TextPredictions) -> None:
        """Write generated.jsonl: the answers that the model generated for held-out examples."""
        columns = (texts.ids, texts.texts, *(texts.columns[name].tolist() for name in OUTPUT[2:]))
        lines = (dict(zip(OUTPUT, line, strict=True)) for line in zip(*columns, strict=True))
        _write_lines(lines, self.path / "generated.jsonl")

    def texts(self) -> TextPredictions:
        """Read generated.jsonl; empty where there is no file. Raises UserError for a line that is no output."""
        path = self.path / "generated.jsonl"
        faults = Faults()
        rows = json_rows(path) if path.exists() and path.stat().st_size else ()
        lines = list(faults.sound_rows(rows, _output))
        faults.refuse("delete the file and generate again", f"{path} has a line that is no output")
        ids, texts, num_tokens, finished = zip(*lines, strict=True) if lines else ((), (), (), ())
        columns = {"num_tokens": np.array(num_tokens, dtype=np.int64), "finished": np.array(finished, dtype=bool)}
        return TextPredictions(ids, texts, columns)

    def save_counts(self, counts: Mapping[str, Any]) -> None:
        """Write transforms.json: the number of examples before and after each transform, and its other counts."""
        if counts:
            write_json(dict(counts), self.path / "transforms.json")

    def save_solved(self, rows: Sequence[SolvedRow]) -> None:
        """Write test_examples.csv, if any: the rows made of solved examples, with the rows that show them."""
        examples = [(row.example.id, row.text, row.example.label, " ".join(row.sources)) for row in rows]
        columns = dict(zip(("id", "text", "label", "sources"), zip(*examples, strict=True), strict=False))
        by = {name: [row.by[name] for row in rows] for name in (rows[0].by if rows else ())}
        if rows:
            _write_table(columns | by, self.path / "test_examples.csv")

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Write inference.json: `Inference.state`, learnt from this fold's training examples."""
        if state:
            write_json(dict(state), self.path / "inference.json")

    def state(self) -> dict[str, Any]:
        path = self.path / "inference.json"
        return read_json(path) if path.exists() else {}

    def save_prompts(self, prompts: Sequence[Any], labels: Any) -> None:
        """Write prompts.jsonl: text and token ids of each held-out prompt, token ids of its candidates and labels."""
        label_ids = dict(zip(labels.labels, labels.continuations, strict=True))
        lines = [{"id": p.id, "text": p.text, "token_ids": p.token_ids.tolist()} for p in prompts]
        for line, prompt in zip(lines, prompts, strict=True):
            if branches := getattr(prompt, "branches", ()):
                line["candidate_token_ids"] = [ids.tolist() for ids in branches]
        _write_lines((line | {"label_token_ids": label_ids} for line in lines), self.path / "prompts.jsonl")


def save_gate(gate: Gate, details: Mapping[str, Any], path: Path) -> None:
    """Write gate.json with a seal: the gate that predict.py uses, and `details` on how it was chosen."""
    values = {**asdict(gate), **details}
    write_json({**values, seals.KEY: seals.hash_values(values)}, path)


def read_gate(path: Path) -> Gate:
    """Read gate.json. Raises UserError where it is missing, broken or lacks a threshold."""
    saved, names = read_json(path), [field.name for field in fields(Gate)]
    fix = f"write it again: python -m nexttoken gate run={path.parent}"
    if missing := [name for name in names if not isinstance(saved.get(name), (int, float))]:
        raise UserError(f"{path} has no number {missing[0]}; {fix}")
    try:
        gate = Gate(**{name: saved[name] for name in names})
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if saved.get(seals.KEY, seals.hash_values(saved)) != seals.hash_values(saved):
        raise UserError(f"{path} was changed after the gate was chosen; {fix}")
    return gate


def save_results(results: Sequence[Mapping[str, Any]], environment: Mapping[str, Any], submission: Path) -> Path:
    """Write <submission>.result.json and return its path; the run is only read.

    <submission>.environment.json has the hardware and versions that its seconds depend on.
    """
    write_json(dict(environment), submission.with_name(f"{submission.stem}.environment.json"))
    write_json(list(results), path := submission.with_name(f"{submission.stem}.result.json"))
    return path


def _output(row: Mapping[str, Any], place: Place) -> tuple[str, str, int, bool]:
    """The values of a line of generated.jsonl. Raises RowFault where one is absent or of another type."""
    if absent := [name for name in OUTPUT if name not in row]:
        raise RowFault(f"lacks {absent[0]}")
    row_id, text, num_tokens, finished = (row[name] for name in OUTPUT)
    if not isinstance(row_id, str) or not isinstance(text, str):
        raise RowFault("its id or output is no text")
    if not is_whole(num_tokens) or not 0 <= num_tokens < 2**63 or not isinstance(finished, bool):
        raise RowFault("num_tokens is no number of tokens, or finished not true or false")
    return row_id, text, num_tokens, finished


def _write_table(columns: Mapping[str, Any], path: Path) -> None:
    """Write `columns` of equal length, or of one value for all rows, as CSV with numbers in full precision.

    Where a text has a carriage return, all texts are quoted: Python 3.11 leaves it bare, and readers end the row there.
    """
    import pandas as pd

    table = pd.DataFrame(columns)
    has_return = any("\r" in str(value) for name in table.select_dtypes(exclude="number") for value in table[name])
    with whole_file(path) as part:
        table.to_csv(part, index=False, quoting=csv.QUOTE_NONNUMERIC if has_return else csv.QUOTE_MINIMAL)


def _write_lines(lines: Iterable[Mapping[str, Any]], path: Path) -> None:
    with whole_file(path) as part:
        write_json_lines(lines, part)
