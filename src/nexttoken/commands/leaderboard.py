"""Note leaderboard scores in the ledger, show them beside out-of-fold scores, and propose the two final picks.

python -m nexttoken leaderboard add file=submissions/<name>.csv public=0.98
python -m nexttoken leaderboard add file=submissions/<name>.csv private=0.99
python -m nexttoken leaderboard

Arguments:
  file=...         with add: a submission that the ledger beside it knows
  public=...       with add: its public score
  private=...      with add: its private score
  ledger=...       the ledger to show (default: submissions/ledger.csv)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from nexttoken.commands.arguments import Arguments
from nexttoken.errors import UserError
from nexttoken.report.terminal import show
from nexttoken.runs.ledger import LEDGER, add_scores, read_ledger

Score = Annotated[float, Field(allow_inf_nan=False)]


class LeaderboardArguments(Arguments):
    paths: tuple[str, ...] = ()
    file: Path | None = None
    public: Score | None = None
    private: Score | None = None
    ledger: Path = Path("submissions") / LEDGER


def main(arguments: Sequence[str]) -> None:
    given = LeaderboardArguments.parse(arguments)
    scores = {"public_lb": given.public, "private_lb": given.private}
    known = {column: score for column, score in scores.items() if score is not None}
    match given.paths:
        case ["add"]:
            if given.file is None or not known:
                raise UserError("add needs file=submissions/<name>.csv and public=... or private=...")
            line = add_scores(given.file.with_name(LEDGER), given.file.name, known)
            print(f"{given.file.with_name(LEDGER)}: {line.file}, public {line.public_lb}, private {line.private_lb}")
        case []:
            if given.file or known:
                raise UserError("file=, public= and private= belong to `leaderboard add`; write add before them")
            show(page(given.ledger))
        case words:
            raise UserError(f"expected `add` or nothing, got {' '.join(words)}")


def page(ledger: Path) -> str:
    """The ledger's page. Raises UserError where it has no submission."""
    from nexttoken.report.leaderboard import leaderboard

    if not (lines := read_ledger(ledger)):
        raise UserError(f"{ledger} has no submissions yet; python predict.py writes one and notes it there")
    return leaderboard(lines, ledger.parent)
