"""Write the configuration of a competition from a look at its tables, with every guess marked.

python -m nexttoken new name=rules input_dir=input/jigsaw-agile-community-rules

Writes conf/task/<name>.yaml and conf/prompt/<name>.yaml, which are yours to correct. docs/table.md explains the keys.

Arguments:
  name=...         of the task: task=<name>
  input_dir=...    folder of train, test and sample_submission: .csv, .tsv, .parquet or .jsonl, also .gz
  id=...           column of the ids, where the guess is wrong
  label=...        column of the labels, where the guess is wrong; several with ":" between: Category:Misconception
  overwrite=true   replace files of that name
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from nexttoken.commands.arguments import Arguments
from nexttoken.commands.data_examples import folded
from nexttoken.data.files import write_text
from nexttoken.errors import UNSHOWN, UserError, first_five, one_line, visible
from nexttoken.settings import Name
from nexttoken.tasks.guesses.guess import TableGuess
from nexttoken.tasks.guesses.table import guess_table
from nexttoken.tasks.guesses.table_files import TableFiles, num_rows
from nexttoken.tasks.table import Table
from nexttoken.tasks.test_rows import without_remarks

CONF = Path("conf")
PLAIN = re.compile(  # needs no quotes in YAML
    r'(?!(yes|no|true|false|null|on|off|y|n|nan|inf)$)[A-Z_][\w./-]*(\(["\w.-]*\))?', re.I | re.A
)
IDENTIFIER = re.compile(r"[A-Za-z_]\w*", re.A)
NO_YAML = re.compile(f"{UNSHOWN.pattern}|[\ufffe\uffff]")  # characters that end a line of YAML, or that it refuses
OWN_NAMES = {"fields", "labels", "choices", "turn", "passages", "context", "options", "zip", "range", "dict", "loop"}
OWN_NAMES |= {"and", "or", "not", "in", "is", "if", "else", "true", "false", "none"}  # words of templates


class NewArguments(Arguments):
    name: Name = Field(examples=["rules"])
    input_dir: Path = Field(examples=["input/<folder>"])
    row_id: str | None = Field(None, alias="id")
    label: str | None = None
    overwrite: bool = False


def main(arguments: Sequence[str]) -> None:
    given = NewArguments.parse(arguments)
    paths = [CONF / group / f"{given.name}.yaml" for group in ("task", "prompt")]
    refuse_place(given, paths)
    files = TableFiles.read(given.input_dir)
    guess = guess_table(files, given.row_id, given.label)
    texts = [task_text(given, guess), prompt_text(given.name, guess)]
    for path, text in zip(paths, texts, strict=True):
        write_text(text.rstrip("\n"), path)
    print(f"wrote {paths[0]} and {paths[1]}")
    print("\n".join(remarks(given, files, guess)))


def refuse_place(given: NewArguments, paths: Sequence[Path]) -> None:
    """Raise UserError outside a checkout, for a name that a command line cannot hold, and for files that exist."""
    if not (CONF / "train.yaml").is_file():
        raise UserError("conf/train.yaml is not there; run the command where train.py and conf/ are")
    if not re.fullmatch(r"[\w-]+", given.name, re.A):
        raise UserError(f"name={given.name!r} is not accepted: expected letters, digits, _ and -, such as name=rules")
    if not given.overwrite and (there := [path for path in paths if path.exists()]):
        raise UserError(f"{first_five(there)} exists already; choose another name=..., or add overwrite=true")


def task_text(given: NewArguments, guess: TableGuess) -> str:
    """The task's YAML, a line for each key."""
    lines = ["# @package _global_", f"# python train.py task={given.name} fold=0", "defaults:"]
    lines.append(f"  - override /prompt: {given.name}")
    if guess.head:
        lines.append(f"  - override /head: {guess.head} # {len(guess.classes)} classes: each is scored by its text")
    if "swap" in guess.task:
        lines.append("  - override /train_transforms: both_orders # a pair is learnt in both orders")
    lines += [f"input_dir: {flow(str(given.input_dir))}", "task:", "  _target_: nexttoken.tasks.table.Table"]
    lines.append(f"  name: {flow(given.name)}")
    for key, value in guess.task.items():
        why = f" # guessed: {visible(one_line(guess.why[key]))}" if guess.why[key] else ""
        lines.append(f"  {key}: {flow(value)}{why}")
    return "\n".join([*lines, *(f"  # {visible(one_line(hint))}" for hint in guess.hints)])


def prompt_text(name: str, guess: TableGuess) -> str:
    """The prompt's YAML: each column under its name, then the classes where the model answers by their letters."""
    shown = [f"  ### {field_title(field)}\n  {field_template(field)}" for field in guess.task["fields"]]
    lines = [f"# The prompt of task={name}, Jinja templates over the columns.", "_target_: nexttoken.prompts.Prompt"]
    lines += ["user: |", *shown]
    if guess.prompt_labels != "names":
        lines += ["  ### Answers", "  {% for label, name in choices %}", "  {{ label }}: {{ name }}", "  {% endfor %}"]
    lines += ["answer_cue: |", "  ### Answer", f"labels: {guess.prompt_labels} # or names, letters, digits"]
    return "\n".join([*lines, "cut_at: 0.7 # where a long text is cut: 0 its beginning, 1 its end"])


def field_title(field: str) -> str:
    """A heading that no template reads as its own."""
    return " ".join(re.sub(r"[{}%#$\\]", " ", NO_YAML.sub(" ", field)).split())


def field_template(field: str) -> str:
    if IDENTIFIER.fullmatch(field) and field.lower() not in OWN_NAMES:
        return f"{{{{ {field}[0] }}}}"
    written = quoted(field).replace("${", "\\${")  # which Hydra would resolve
    return f"{{{{ fields[{written}] }}}}"


def quoted(text: str) -> str:
    """The text as JSON, which YAML and templates read as well; a character that they refuse is an escape."""
    return NO_YAML.sub(lambda found: f"\\u{ord(found.group()):04x}", json.dumps(text, ensure_ascii=False))


def flow(value: Any) -> str:
    """A value as YAML on one line; texts that YAML or Hydra would read as something else are quoted."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{flow(key)}: {flow(one)}' for key, one in value.items())}}}"
    if isinstance(value, str):
        return value if PLAIN.fullmatch(value) else quoted(value).replace("${", "\\\\${")
    return f"[{', '.join(map(flow, value))}]"


def remarks(given: NewArguments, files: TableFiles, guess: TableGuess) -> list[str]:
    """Lines on what was guessed and left out, on problems of the rows, and on the next commands."""
    tables = {"training": files.train, "test": files.test}
    sizes = [f"{num_rows(table):,} {name}" for name, table in tables.items() if table]
    lines = [f"{' and '.join(sizes)} rows, {len(guess.classes):,} classes: {first_five(guess.classes)}"]
    shown = [key for key, why in guess.why.items() if why and key != "unpivot"]
    lines += [f"guessed {key}: {flow(guess.task[key])}" for key in shown]
    lines += [f"not shown, {why}: {', '.join(names)}" for why, names in guess.left_out.items()]
    lines += [f"perhaps {hint}" for hint in guess.hints]
    return [
        *(folded(visible(line)) for line in lines),
        *problems(given, guess),
        f"next: correct conf/task/{given.name}.yaml and conf/prompt/{given.name}.yaml, then",
        f"  python -m nexttoken data task={given.name}",
        f"  python train.py task={given.name} fold=0",
    ]


def problems(given: NewArguments, guess: TableGuess) -> list[str]:
    """A line for what the task refuses in its files, as train.py would."""
    try:
        with without_remarks():
            task = Table(given.name, given.input_dir, **guess.task)
            task.read("train")
            task.read("test")
    except UserError as error:
        return [f"problem: {error}"]
    return []
