"""The leaderboard ledger: a line for each submission, to trace a leaderboard score to its run."""

import csv
import io
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from nexttoken.data.csv_tables import csv_rows
from nexttoken.data.files import hash_file, whole_file
from nexttoken.data.text_files import open_text
from nexttoken.data.whole_files import make_folder
from nexttoken.errors import UserError, nearest
from nexttoken.runs.lock import waiting_lock


@dataclass(frozen=True, slots=True)
class Submission:
    """A line of the ledger; people fill in the two leaderboard scores, None until then."""

    time: str  # UTC, ISO 8601
    file: str
    run: str  # its run folder, empty when unknown
    folds: str  # "0 1 2 3 4", or "all" of a final model
    oof_log_loss: float | None
    sha256: str
    public_lb: float | None = None
    private_lb: float | None = None
    asked: str = ""  # how, where it is another way than the run was scored by
    metric: str = ""  # the task's own
    oof_score: float | None = None  # by it

    def is_of(self, run: Path) -> bool:
        """True for a submission of this run: `output/lmsys/x` and `/home/me/nexttoken/output/lmsys/x` are one."""
        return Path(self.run).parts[-2:] == run.resolve().parts[-2:]


LINE_END = re.compile("\r\n|\r|\n|$")
OPTIONAL = ("asked", "metric", "oof_score")  # columns that older ledgers lack
COLUMNS = tuple(field.name for field in fields(Submission) if field.name not in OPTIONAL)
LEDGER = "ledger.csv"


def submission_path(folder: Path, name: str, suffix: str) -> Path:
    """The file `name` in `folder`, which is made. Raises UserError where it would not be a submission's own.

    That is the ledger, and any file or folder that the ledger beside it does not know.
    """
    path = folder / f"{name.removesuffix(suffix)}{suffix}"
    is_known = any(line.file == path.name for line in read_ledger(folder / LEDGER))
    if path.name.lower() == LEDGER or path.is_dir() or (os.path.lexists(path) and not is_known):
        what = f"{path} would be overwritten, and is no submission in {folder / LEDGER}"
        raise UserError(f"{what}; choose another name=..., or move it away")
    make_folder(folder)
    return path


def record(
    submission: Path,
    run: str = "",
    folds: Sequence[int | str] = (),
    oof_log_loss: float | None = None,
    ledger: Path | None = None,
    asked: str = "",
    metric: str = "",
    oof_score: float | None = None,
) -> bool:
    """Append `submission` to the ledger (default: `ledger.csv` beside it); False if these bytes are already there.

    The other bytes of the ledger stay as they are. Raises UserError for a ledger that cannot be read.
    """
    ledger = ledger or submission.with_name(LEDGER)
    sha256 = hash_file(submission)
    ledger.parent.mkdir(parents=True, exist_ok=True)
    with waiting_lock(ledger):
        if any((past.file, past.sha256) == (submission.name, sha256) for past in read_ledger(ledger)):
            return False
        time, numbers = datetime.now(UTC).isoformat(timespec="seconds"), " ".join(map(str, folds))
        scores = {"oof_log_loss": oof_log_loss, "metric": metric, "oof_score": oof_score}
        line = Submission(time, submission.name, run, numbers, sha256=sha256, asked=asked, **scores)  # type: ignore[arg-type]
        text = ",".join((*COLUMNS, *OPTIONAL)) + "\n"
        if ledger.exists():
            with open_text(ledger) as file:
                text = file.read()  # with its line ends, without the byte order mark that spreadsheets add
        header = next(csv.reader(io.StringIO(text, newline="")))  # people reorder columns and add their own
        end = LINE_END.findall(text)[0] or "\n"  # as the spreadsheet ends its lines that wrote the file last
        tail = io.StringIO()
        csv.writer(tail, lineterminator=end).writerow([getattr(line, column, None) for column in header])
        with whole_file(ledger) as part:
            whole = text + ("" if text.endswith(("\r", "\n")) else end) + tail.getvalue()
            part.write_bytes(whole.encode(errors="replace"))  # the name of a run folder may hold any bytes
    return True


def add_scores(ledger: Path, name: str, scores: Mapping[str, float]) -> Submission:
    """Write leaderboard scores, by column, into the last line of the file `name`; return the line as it is then.

    Of several files of this name it is the one whose bytes lie beside the ledger. The other lines keep their bytes.
    Raises UserError where the ledger has no such line.
    """
    if not ledger.exists():
        raise UserError(f"{ledger} is not there; python predict.py writes it with the first submission")
    with waiting_lock(ledger):
        lines = read_ledger(ledger)
        named = [place for place, line in enumerate(lines) if line.file == name]
        if not named:
            raise UserError(f"{ledger} has no file={name}; {nearest(name, {line.file for line in lines})}")
        path = ledger.with_name(name)
        present = hash_file(path) if path.is_file() else ""
        place = next((place for place in reversed(named) if lines[place].sha256 == present), named[-1])
        rows = list(csv_rows(ledger, "a ledger of submissions"))
        (_, header), (start, _) = rows[0], rows[place + 1]
        with open_text(ledger) as file:
            text = list(file)  # with line ends; a quoted cell may go over several lines
        reader = csv.reader(text[start.line - 1 :])
        cells = next(reader)
        cells += [""] * (len(header) - len(cells))
        for column, score in scores.items():
            cells[header.index(column)] = str(score)
        changed, last = io.StringIO(), start.line - 1 + reader.line_num
        csv.writer(changed, lineterminator=LINE_END.findall(text[last - 1])[0]).writerow(cells)
        with whole_file(ledger) as part:
            whole = "".join([*text[: start.line - 1], changed.getvalue(), *text[last:]])
            part.write_bytes(whole.encode(errors="replace"))
        return read_ledger(ledger)[place]


def read_ledger(ledger: Path) -> list[Submission]:
    """The ledger's lines in order; none if there is no ledger. Raises UserError for a missing column or a bad score."""
    if not ledger.exists():
        return []
    rows = csv_rows(ledger, "a ledger of submissions")
    header = next((cells for _, cells in rows), [])
    if missing := [column for column in COLUMNS if column not in header]:
        raise UserError(f"{ledger} has no column {', '.join(missing)}; expected the header {','.join(COLUMNS)}")
    return [_submission(dict(zip(header, row, strict=False)), f"{ledger}, line {place.line}") for place, row in rows]


def _submission(row: dict[str, str], place: str) -> Submission:
    cells = {column: row.get(column, "").strip() for column in (*COLUMNS, *OPTIONAL)}
    scored = ("oof_log_loss", "public_lb", "private_lb", "oof_score")
    try:
        scores = {column: float(cells[column]) if cells[column] else None for column in scored}
        if wrong := [score for score in scores.values() if score is not None and not math.isfinite(score)]:
            raise ValueError(f"{wrong[0]} is no score")
    except ValueError as error:
        raise UserError(f"{place}: {error}; expected a score such as 0.98, or nothing") from error
    return Submission(**{**cells, **scores})  # type: ignore[arg-type]
