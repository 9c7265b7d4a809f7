"""A submission file checked against the test.csv and sample_submission.csv that it belongs to.

python -m nexttoken submission submissions/<name>.csv [input_dir=input/sample-preferences]
"""

from collections.abc import Sequence
from pathlib import Path

from nexttoken.commands.arguments import Arguments, OnePath
from nexttoken.data.csv_tables import read_columns
from nexttoken.tasks.submission import validate_submission


class SubmissionArguments(Arguments):
    paths: OnePath
    input_dir: Path = Path("input/sample-preferences")


def main(arguments: Sequence[str]) -> None:
    """Check one file against the test.csv and sample_submission.csv of `input_dir`."""
    given = SubmissionArguments.parse(arguments)
    print(check_submission(given.paths[0], given.input_dir))


def check_submission(path: Path, input_dir: Path) -> str:
    """Say that the file fits the competition's files in `input_dir`. Raises UserError where it does not."""
    test_ids = read_columns(input_dir / "test.csv", ["id"])["id"]
    validate_submission(path, test_ids, list(read_columns(input_dir / "sample_submission.csv", ["id"])))
    return f"{path}: valid, {len(test_ids):,} rows with the ids of {input_dir / 'test.csv'} in order"
