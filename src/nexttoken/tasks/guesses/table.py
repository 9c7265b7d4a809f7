"""The guess of a whole table task from the files of its folder."""

from nexttoken.tasks.guesses.answers import guess_classes, guess_groups, guess_submission
from nexttoken.tasks.guesses.columns import guess_fields, guess_id, guess_label
from nexttoken.tasks.guesses.guess import TableGuess
from nexttoken.tasks.guesses.table_files import TableFiles


def guess_table(files: TableFiles, row_id: str | None = None, label: str | None = None) -> TableGuess:
    """Return the guess for the tables of a folder; `row_id` and `label` name columns that are not guessed.

    Raises: UserError where the answers are no classes, and where a column cannot be told.
    """
    guess = TableGuess()
    guess_id(guess, files, row_id)
    guess_label(guess, files, label)
    guess_fields(guess, files)
    guess_classes(guess, files)
    guess_groups(guess, files)
    guess_submission(guess, files)
    for key, name in files.named.items():
        guess.put(key, name)
    if files.unpivot:
        guess.put("unpivot", files.unpivot, "a row for each value in the sample's ids")
    return guess
