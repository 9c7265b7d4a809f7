"""The leaderboard ledger: a line for each submission, to trace a leaderboard score to its run."""

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from nexttoken.data.files import whole_file
from nexttoken.errors import UserError


@dataclass(frozen=True, slots=True)
class Submission:
    """A line of the ledger; people fill in the two leaderboard scores, None until then."""

    time: str  # UTC, ISO 8601
    file: str
    run: str  # its run folder, empty when unknown
    folds: str  # "0 1 2 3 4"
    oof_log_loss: float | None
    sha256: str
    public_lb: float | None = None
    private_lb: float | None = None


COLUMNS = tuple(field.name for field in fields(Submission))


def record(
    submission: Path,
    run: str = "",
    folds: Sequence[int] = (),
    oof_log_loss: float | None = None,
    ledger: Path | None = None,
) -> bool:
    """Append `submission` to the ledger (default: `ledger.csv` beside it); False if these bytes are already there.

    The other bytes of the ledger stay as they are. Raises UserError for a ledger that cannot be read.
    """
    import fcntl  # POSIX only; reading a ledger works everywhere

    ledger = ledger or submission.with_name("ledger.csv")
    sha256 = hashlib.sha256(submission.read_bytes()).hexdigest()
    ledger.parent.mkdir(parents=True, exist_ok=True)
    # The lock file stays: a waiting process would lock a removed file, which the next process does not see.
    with ledger.with_name(f".{ledger.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if any((past.file, past.sha256) == (submission.name, sha256) for past in read_ledger(ledger)):
            return False
        time, numbers = datetime.now(UTC).isoformat(timespec="seconds"), " ".join(map(str, folds))
        line = Submission(time, submission.name, run, numbers, oof_log_loss, sha256)
        text = _read_text(ledger) if ledger.exists() else ",".join(COLUMNS) + "\n"
        header = next(csv.reader(io.StringIO(text)))  # people reorder columns and add their own
        tail = io.StringIO()
        csv.writer(tail, lineterminator="\n").writerow([getattr(line, column, None) for column in header])
        with whole_file(ledger) as part:
            part.write_bytes((text + ("" if text.endswith("\n") else "\n") + tail.getvalue()).encode())
    return True


def read_ledger(ledger: Path) -> list[Submission]:
    """The ledger's lines in order; none if there is no ledger. Raises UserError for a missing column or a bad score."""
    if not ledger.exists():
        return []
    rows = csv.DictReader(io.StringIO(_read_text(ledger)))
    if missing := [column for column in COLUMNS if column not in (rows.fieldnames or ())]:
        raise UserError(f"{ledger} has no column {', '.join(missing)}; expected the header {','.join(COLUMNS)}")
    return [_submission(row, f"{ledger}, line {rows.line_num}") for row in rows]


def _read_text(ledger: Path) -> str:
    """The ledger as text with its line ends kept; the byte order mark that spreadsheets add is dropped."""
    try:
        return ledger.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{ledger} is not UTF-8 ({error}); save it as 'CSV UTF-8'") from error


def _submission(row: dict[str, str | None], place: str) -> Submission:
    cells = {column: (row[column] or "").strip() for column in COLUMNS}
    scored = ("oof_log_loss", "public_lb", "private_lb")
    try:
        scores = {column: float(cells[column]) if cells[column] else None for column in scored}
    except ValueError as error:
        raise UserError(f"{place}: {error}; expected a score such as 0.98, or nothing") from error
    return Submission(**{**cells, **scores})  # type: ignore[arg-type]
