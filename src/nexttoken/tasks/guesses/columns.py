"""A table's columns by what they are: the id, the label or the votes, and the texts that a model reads."""

import re
from collections.abc import Sequence

import numpy as np

from nexttoken.errors import UserError, first_five, nearest
from nexttoken.tasks.guesses.guess import TableGuess
from nexttoken.tasks.guesses.table_files import TableFiles, num_rows
from nexttoken.tasks.guesses.texts import ID_NAME, is_number, left_out
from nexttoken.tasks.label_space import JOINED
from nexttoken.tasks.solved_examples import CONVENTION

USUAL_LABELS = re.compile(r"label|target|class|category|winner|y", re.I)


def guess_id(guess: TableGuess, files: TableFiles, given: str | None) -> None:
    name = given or next(iter(files.sample), "")
    columns = files.test or files.train
    parts = name.split("_")
    if name in columns:
        guess.put("id", name, "" if given else "the first column of the sample")
        return
    if len(parts) > 1 and {*parts} <= columns.keys():
        guess.put("id", parts, f"the sample's {name}")
        return
    if given:
        raise UserError(f"id={given}: {files.paths['train']} has no such column; {nearest(given, columns)}")
    ids = next(iter(files.sample.values()), [])
    same = [column for column, cells in files.test.items() if ids and {*cells} == {*ids}]
    tables = [table for table in (files.test, files.train) if table]
    unique = [name for name in columns if all(len({*table.get(name, ())}) == num_rows(table) for table in tables)]
    usual = [name for name in unique if ID_NAME.search(name)]
    if found := [*same, *usual, *unique]:
        guess.put("id", found[0], "the values of the sample's first column" if same else "differs in every row")
        return
    raise UserError(f"no column of {files.paths['train']} differs in every row; name the id's with id=<column>")


def guess_label(guess: TableGuess, files: TableFiles, given: str | None) -> None:
    """Put `label`, or `votes` where the sample has a column of numbers for each class."""
    train, answers = files.train, [*files.sample][1:]
    hidden = [name for name in train if name not in files.test] if files.test else []
    if given:
        if missing := [name for name in given.split(JOINED) if name not in train]:
            raise UserError(
                f"label={given}: {files.paths['train']} has no {missing[0]}; {nearest(missing[0], [*train])}"
            )
        guess.put("label", given.split(JOINED) if JOINED in given else given)
        return
    if len(answers) > 1 and {*answers} <= train.keys():
        refuse_other_numbers(files, answers)
        guess.put("votes", answers, "numbers by class in the sample's columns")
        return
    for answer in answers[:1] if len(answers) == 1 else ():
        parts = answer.split(JOINED)
        if answer in train:
            guess.put("label", answer, "the sample's column")
            return
        if {*parts} <= train.keys():
            guess.put("label", parts, "the sample's column")
            return
    shown = {word for name in answers for cell in files.sample[name] for word in (cell, *cell.split())}
    wanted = {*answers} if len(answers) > 1 else shown
    same = [name for name in hidden if wanted and {*filter(None, train[name])} & wanted]
    several = [name for name in hidden if len({*train[name]}) > 1]
    usual = [name for name in several or train if USUAL_LABELS.fullmatch(name)]
    fewest = sorted(several, key=lambda name: len({*train[name]}))
    if found := [*same, *usual, *fewest]:
        guess.put("label", found[0], "only the training rows have it")
        return
    raise UserError(
        f"{files.paths['train']} has no column that only training rows have; name the label's with label=<column>"
    )


def refuse_other_numbers(files: TableFiles, columns: Sequence[str]) -> None:
    """Raise UserError unless each row has numbers of at least 0, and of zeros and ones exactly one 1."""
    cells = [files.train[name] for name in columns]
    if not all(is_number(cell) for column in cells for cell in column):
        raise UserError(f"the columns {first_five(columns)} of the training rows have texts; name one with label=...")
    numbers = np.array(cells, dtype=float)
    wrong = ((numbers < 0).any(axis=0) | (numbers.sum(axis=0) == 0)).sum()
    if not numbers.size or np.isin(numbers, (0, 1)).all():
        wrong = (numbers.sum(axis=0) != 1).sum()
    if wrong:
        what = f"{wrong:,} of {numbers.shape[1]:,} training rows have none or several of {first_five(columns)}"
        raise UserError(f"{what}; a table has one answer a row: choose one of the columns with label=...")


def guess_fields(guess: TableGuess, files: TableFiles) -> None:
    """Put the columns of text that both files have; numbers only where there is no text."""
    given = (guess.task[key] for key in ("id", "label", "votes") if key in guess.task)
    used = {name for value in given for name in ([value] if isinstance(value, str) else value)}
    unpivot = files.unpivot or {}
    used |= {unpivot.get("name"), unpivot.get("skip_equal_to")}
    texts = []
    for name in files.train:
        if name in used or (files.test and name not in files.test):
            continue
        why = left_out(name, files.train[name]) if files.holds_text(name) else "lists or bytes"
        texts += [] if why else [name]
        if why:
            guess.left_out.setdefault(why, []).append(name)
    texts = texts or guess.left_out.pop("numbers", [])
    if not texts:
        raise UserError(f"{files.paths['train']} has no column of text beside the id and the label that test has, too")
    guess.put("fields", texts, "the columns of text")
    if any(name.startswith(CONVENTION) for name in texts):
        guess.hints.append("train.py test_examples=true: rows bring solved examples, those of the test file are learnt")


def labels_of(guess: TableGuess, files: TableFiles) -> list[str]:
    """Each training row's label; "" for none."""
    names = guess.task["label"] if isinstance(guess.task["label"], list) else [guess.task["label"]]
    rows = zip(*(files.train[name] for name in names), strict=True)
    return [JOINED.join(row) if all(cell.strip() for cell in row) else "" for row in rows]
