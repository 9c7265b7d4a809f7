"""Check a submission file against the test.csv and sample_submission.csv that it belongs to.

python -m nexttoken submission submissions/<name>.csv

Arguments:
  path             the submission file
  input_dir=...    folder of test.csv and sample_submission.csv (default: input/sample-preferences)
"""

from collections.abc import Sequence
from pathlib import Path

from nexttoken.commands.arguments import Arguments, OnePath
from nexttoken.data.csv_tables import read_columns
from nexttoken.errors import UserError
from nexttoken.tasks.preference import GET
from nexttoken.tasks.submission import validate_submission


class SubmissionArguments(Arguments):
    paths: OnePath
    input_dir: Path = Path("input/sample-preferences")


def main(arguments: Sequence[str]) -> None:
    given = SubmissionArguments.parse(arguments)
    print(check_submission(given.paths[0], given.input_dir))


def check_submission(path: Path, input_dir: Path) -> str:
    """Return a line that says the file is valid. Raises UserError where it does not fit the files in `input_dir`."""
    if not path.is_file():
        raise UserError(f"{path} is no file; expected a submission, which `python predict.py` writes")
    test_ids = read_columns(input_dir / "test.csv", ["id"], GET)["id"]
    validate_submission(path, test_ids, list(read_columns(input_dir / "sample_submission.csv", ["id"], GET)))
    return f"{path}: valid, {len(test_ids):,} rows with the ids of {input_dir / 'test.csv'} in order"
