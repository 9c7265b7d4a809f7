"""The leaderboard ledger: one line per submission written, so that a leaderboard score can be traced to its run."""

import csv
import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from nexttoken.data.files import whole_file
from nexttoken.errors import UserError


@dataclass(frozen=True, slots=True)
class Submission:
    """One line of the ledger; the two leaderboard scores are filled in by hand, None until then."""

    time: str  # UTC, ISO 8601
    file: str
    run: str  # the run folder it came from, empty when unknown
    folds: str  # "0 1 2 3 4"
    oof_log_loss: float | None
    sha256: str
    public_lb: float | None = None
    private_lb: float | None = None


COLUMNS = tuple(field.name for field in fields(Submission))
SCORES = ("oof_log_loss", "public_lb", "private_lb")


def record(
    submission: Path,
    run: str = "",
    folds: Sequence[int] = (),
    oof_log_loss: float | None = None,
    ledger: Path | None = None,
) -> bool:
    """Append `submission` to the ledger (default: `ledger.csv` beside it); False if these bytes are already there.

    What people typed into the ledger stays as it is, byte for byte. Raises UserError for a ledger that cannot be read.
    """
    ledger = ledger or submission.with_name("ledger.csv")
    sha256 = hashlib.sha256(submission.read_bytes()).hexdigest()
    with locked(ledger):
        if any((past.file, past.sha256) == (submission.name, sha256) for past in read_ledger(ledger)):
            return False
        time = datetime.now(UTC).isoformat(timespec="seconds")
        line = Submission(time, submission.name, run, " ".join(map(str, folds)), oof_log_loss, sha256)
        _append(ledger, line)
    return True


def read_ledger(ledger: Path) -> list[Submission]:
    """The ledger's lines in order; none if there is no ledger. Raises UserError for a missing column or a bad score."""
    if not ledger.exists():
        return []
    rows = csv.DictReader(io.StringIO(_text(ledger)))
    if missing := [column for column in COLUMNS if column not in (rows.fieldnames or ())]:
        raise UserError(f"{ledger} has no column {', '.join(missing)}; expected the header {','.join(COLUMNS)}")
    return [_submission(row, f"{ledger}, line {rows.line_num}") for row in rows]


@contextmanager
def locked(ledger: Path) -> Iterator[None]:
    """Hold the ledger alone: two runs that finish together both get their line."""
    import fcntl  # POSIX only, so that merely reading a ledger works everywhere

    ledger.parent.mkdir(parents=True, exist_ok=True)
    # The lock file stays: removing it would let a waiting writer lock a file that nobody else can see.
    with ledger.with_name(f".{ledger.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _append(ledger: Path, line: Submission) -> None:
    text = _text(ledger) if ledger.exists() else ",".join(COLUMNS) + "\n"
    header = next(csv.reader(io.StringIO(text)))  # people reorder columns and add their own
    cells = {column: "" if (value := getattr(line, column)) is None else value for column in COLUMNS}
    tail = io.StringIO()
    csv.writer(tail, lineterminator="\n").writerow([cells.get(column, "") for column in header])
    with whole_file(ledger) as part:
        part.write_bytes((text + ("" if text.endswith("\n") else "\n") + tail.getvalue()).encode())


def _text(ledger: Path) -> str:
    """The ledger as text with its line ends kept; the byte order mark that spreadsheets add is dropped."""
    try:
        return ledger.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{ledger} is not UTF-8 ({error}); save it as 'CSV UTF-8'") from error


def _submission(row: dict[str, str | None], place: str) -> Submission:
    cells = {column: (row[column] or "").strip() for column in COLUMNS}
    try:
        scores = {column: float(cells[column]) if cells[column] else None for column in SCORES}
    except ValueError as error:
        raise UserError(f"{place}: {error}; expected a score such as 0.98, or nothing") from error
    return Submission(**{**cells, **scores})  # type: ignore[arg-type]
