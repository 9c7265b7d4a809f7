"""The guess of a whole table task from the files of its folder."""

import re
from collections.abc import Iterable, Sequence

from nexttoken.errors import UserError
from nexttoken.tasks.guesses.columns import guess_fields, guess_id, guess_label, labels_of
from nexttoken.tasks.guesses.guess import TableGuess
from nexttoken.tasks.guesses.table_files import TableFiles
from nexttoken.tasks.guesses.texts import is_number
from nexttoken.tasks.label_space import learnt_classes

MAX_LISTED = 10  # classes that the configuration lists; more are learnt from the training rows
MAX_LETTERS = 26  # classes that the prompt lists behind letters; of more, each candidate's text is scored
FEW_LABELS = 0.5  # of all classes: a column whose values have fewer labels than this share each is a hint
YES_NO = {("0", "1"): ("No", "Yes"), ("False", "True"): ("No", "Yes"), ("false", "true"): ("No", "Yes")}


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


def guess_classes(guess: TableGuess, files: TableFiles) -> None:
    """Put `classes` and `swap`, and choose how the model reads so many of them."""
    votes = guess.task.get("votes")
    labels = [] if votes else [label.removesuffix(".0") for label in labels_of(guess, files) if label]
    classes = votes or learnt_classes(labels)
    table = None if votes else naming_table(guess, files, {*classes})
    if not votes and not table:
        refuse_open_answers(guess, labels, classes)
    guess.classes = list(files.others[table["file"]][table["value"]]) if table else classes
    pair = any(name.endswith("_a") and f"{name[:-2]}_b" in guess.task["fields"] for name in guess.task["fields"])
    swap = guess_swap(classes) if pair else {}
    if table:
        guess.put("classes", table, "a table of names")
    elif swap:
        (first, second), *_ = swap.items()
        guess.put("classes", {name: {first: "A", second: "B"}.get(name, "tie") for name in classes}, "a pair's names")
        guess.put("swap", swap, "fields end in _a and _b")
    elif tuple(classes) in YES_NO:
        guess.put("classes", dict(zip(classes, YES_NO[tuple(classes)], strict=True)), "names for the values")
    elif not votes and len(classes) <= MAX_LISTED:
        guess.put("classes", classes, "the labels of the training rows")
    if len(guess.classes) > MAX_LETTERS:
        guess.head = "candidates"
    elif len(guess.classes) > MAX_LISTED:
        guess.prompt_labels = "letters"


def guess_swap(classes: Sequence[str]) -> dict[str, str]:
    """The two classes that change places with a pair's answers: model_a and model_b, or the only two; else {}."""
    ends = [[name for name in classes if re.search(rf"(^|[^a-z]){end}$", name.lower())] for end in "ab"]
    if all(len(names) == 1 for names in ends):
        return {ends[0][0]: ends[1][0]}
    return {classes[0]: classes[1]} if len(classes) == 2 else {}


def naming_table(guess: TableGuess, files: TableFiles, classes: set[str]) -> dict[str, str] | None:
    """The other file with the label's column, every class, and a column of names; None without one."""
    value = guess.task["label"]
    for file, columns in files.others.items():
        names = [name for name in columns if name != value and len({*columns[name]}) == len(columns[name])]
        if isinstance(value, str) and names and classes <= {*columns.get(value, ())}:
            return {"file": file, "value": value, "name": names[0]}
    return None


def refuse_open_answers(guess: TableGuess, labels: Sequence[str], classes: Sequence[str]) -> None:
    """Raise UserError for labels that are measures or texts of their own."""
    name = guess.task["label"]
    if len(classes) < 2:
        raise UserError(f"the label {name} has {len(classes)} different values in the training rows; expected two")
    if any(is_number(one) and not float(one).is_integer() for one in classes):
        raise UserError(f"the label {name} is a measure such as {classes[0]}; a table predicts one of some classes")
    if len(classes) > max(20, len(labels) // 2):
        what = f"the label {name} has {len(classes):,} different values in {len(labels):,} rows"
        raise UserError(f"{what}; a table predicts one of some classes: name another with label=<column>")


def guess_groups(guess: TableGuess, files: TableFiles) -> None:
    """Put `group_by`, and a hint where the values of a column have few of the labels each."""
    fields, train = guess.task["fields"], files.train
    shared = [name for name in fields if not name.endswith(("_a", "_b"))]
    whole = [name for name in fields if name not in (files.unpivot or {}).get("columns", ())]  # of rows before unpivot
    most = max(whole or fields, key=lambda name: (len({*train[name]}), sum(map(len, train[name]))))
    if len(fields) > 1:
        guess.put("group_by", shared if "swap" in guess.task and shared else [most], "rows with it share a fold")
    if "label" not in guess.task or len(guess.classes) <= MAX_LISTED:
        return
    labels = labels_of(guess, files)
    for name in (name for name in train if name in (files.test or train)):
        pairs = {(value, label) for value, label in zip(train[name], labels, strict=True) if label}
        values = {value for value, _ in pairs}
        each = len(pairs) / max(len(values), 1)
        if 1 < len(values) <= len(labels) / 5 and each < FEW_LABELS * len({*labels}):
            guess.hints.append(f"labels_by: {name}  # a value has {each:.1f} of {len({*labels})} labels")
            return


def guess_submission(guess: TableGuess, files: TableFiles) -> None:
    """Put `metric` and `submission` as the sample's cells show them."""
    answers, classes = [*files.sample][1:], guess.classes
    if sorted(answers) == sorted(classes) or not answers:
        guess.put("metric", "log_loss", "probabilities of the classes" if answers else "there is no sample")
        return
    if len(answers) > 1:
        guess_columns(guess, answers)
        return
    answer, cells = answers[0], files.sample[answers[0]]
    number = max(len(cell.split()) for cell in cells)
    if len(classes) == 2 and all(map(is_number, cells)) and not {*cells} <= {*classes}:
        guess.put("metric", "auc", "or log_loss: the sample has numbers")
        guess.put("submission", {answer: f'probability("{classes[1]}")'}, "the sample has numbers")
        return
    if number > 1 and {word for cell in cells for word in cell.split()} <= {*classes}:
        guess.put("metric", f"map_at({number})", "the sample has labels in order")
        guess.put("submission", {answer: f"best({number})"}, "the sample has labels in order")
        return
    guess.put("metric", "accuracy", "the sample has a label a row")
    guess.put("submission", {answer: "best"}, "the sample has a label a row")


def guess_columns(guess: TableGuess, answers: Iterable[str]) -> None:
    """Put the probability of the class that each column names: winner_model_a is that of model_a."""
    columns = {answer: sorted((name for name in guess.classes if answer.endswith(name)), key=len) for answer in answers}
    if lost := [answer for answer, names in columns.items() if not names]:
        guess.put("submission", {}, f"unknown: say what the column {lost[0]} holds")
        return
    guess.put("metric", "log_loss", "probabilities of the classes")
    guess.put("submission", {answer: f'probability("{names[-1]}")' for answer, names in columns.items()}, "by name")
