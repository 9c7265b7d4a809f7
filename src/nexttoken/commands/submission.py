"""A submission file checked against the test.csv and sample_submission.csv that it belongs to.

python -m nexttoken submission submissions/<name>.csv [input_dir=input/sample-preferences]
"""

from collections.abc import Sequence
from pathlib import Path

from nexttoken.commands.arguments import key_values
from nexttoken.data.csv_tables import read_columns
from nexttoken.errors import UserError
from nexttoken.tasks.submission import validate_submission


def main(arguments: Sequence[str]) -> None:
    """Check one file against the test.csv and sample_submission.csv of `input_dir`."""
    paths = [argument for argument in arguments if "=" not in argument]
    options = key_values([a for a in arguments if "=" in a], {"input_dir": "input/sample-preferences"})
    if len(paths) != 1:
        raise UserError(f"expected one submission file, got {len(paths)}; write submission submissions/<name>.csv")
    input_dir = Path(options["input_dir"])
    test_ids = read_columns(input_dir / "test.csv", ["id"])["id"]
    columns = list(read_columns(input_dir / "sample_submission.csv", ["id"]))
    validate_submission(Path(paths[0]), test_ids, columns)
    print(f"{paths[0]}: valid, {len(test_ids):,} rows with the ids of {input_dir / 'test.csv'} in order")
