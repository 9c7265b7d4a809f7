"""The tokens that spell the labels, and how they will be read; no weights are loaded.

python -m nexttoken labels                                           the model built from nothing
python -m nexttoken labels model=mistral_7b prompt=conversation      overrides as for train.py
python -m nexttoken labels model.name_or_path=<hub name or folder>
python -m nexttoken labels model=mistral_7b,llama3_8b                one after the other
python -m nexttoken labels model=mistral_7b markdown=audit.md        the table of situations as a file, too
"""

import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nexttoken.commands.arguments import Arguments
from nexttoken.commands.entry import compose
from nexttoken.errors import UserError

if TYPE_CHECKING:
    from nexttoken.build import Parts
    from nexttoken.prompts.label_audit import Audit
    from nexttoken.types import Example

NUM_ROWS = 64  # enough different ends of prompts to see whether the labels' tokens depend on them
HEADER = ["the label stands behind", "labels", "tokens per label", "read in", "re-joined", "verdict"]


class LabelsArguments(Arguments):
    model: str | None = None  # one choice or several, as a,b
    markdown: Path | None = None
    overrides: tuple[str, ...] = ()

    @property
    def overrides_by_model(self) -> list[tuple[str, ...]]:
        models = [(f"model={model}",) for model in self.model.split(",")] if self.model else [()]
        return [model + self.overrides for model in models]


def main(arguments: Sequence[str]) -> None:
    """Audit one model after the other; one that cannot be audited is an error, but does not stop the others."""
    given = LabelsArguments.parse(arguments)
    models = given.overrides_by_model
    several = len(models) > 1
    tables: dict[str, str] = {}
    errors: list[str] = []
    for overrides in models:
        name = " ".join(overrides) or "model=scratch"
        try:
            tables[name], refusal = audit(overrides)
            errors += [refusal] * bool(refusal)
        except UserError as error:
            errors.append(str(error))
            if several:
                print(f"{name}: {error}", file=sys.stderr, flush=True)
    if given.markdown and tables:
        write_tables(given.markdown, tables)
    if errors:
        raise UserError(f"{len(errors)} of {len(models)} models were refused" if several else errors[0])


def audit(overrides: Sequence[str]) -> tuple[str, str]:
    """Print one configuration's audit; return the table of situations, and why its labels are refused ("": they fit).

    Raises UserError for a wrong configuration and for a missing tokenizer.
    """
    from nexttoken.build import prepare
    from nexttoken.pipeline import read

    parts, _ = prepare(compose("train", overrides), overrides)
    if not parts.task.classes:
        raise UserError(f"the answers of task {parts.task.name} are open texts, so there are no labels to audit")
    examples = read(parts, "train")
    tokenizer = load_tokenizer(parts, examples)
    from nexttoken.prompts.label_audit import audit_prompt, audit_situations

    print(f"{parts.settings.model.name_or_path or 'built from the training text'}: {len(tokenizer):,} tokens")
    refusal = ""
    try:
        print(audit_prompt(tokenizer, parts.prompt, parts.settings.max_tokens, examples[:NUM_ROWS]))
    except UserError as error:
        refusal = str(error)
        print(f"refused: {refusal}")
    table = situations_table(audit_situations(tokenizer))
    print(f"\n{table}\n", flush=True)
    return table, refusal


def load_tokenizer(parts: "Parts", examples: "list[Example]") -> Any:
    """The tokenizer that train.py would use; one that is built from nothing learns from the fold's training rows."""
    from nexttoken import pipeline
    from nexttoken.transforms import apply_transforms

    texts: Sequence[str] = ()
    if parts.settings.model.name_or_path is None:
        from nexttoken.training.learner import training_texts

        rows = pipeline.choose_rows(parts, examples, pipeline.split(parts, examples)).train
        texts = training_texts(parts.prompt, apply_transforms(rows, parts.train_transforms))
    from nexttoken.models.load import load_tokenizer

    return load_tokenizer(parts.settings.model, texts)


def situations_table(audits: "Sequence[Audit]") -> str:
    """A Markdown table, one line for both languages where they agree."""
    from nexttoken.report.markdown import markdown

    rows = []
    for labels, group in groupby(audits, key=lambda audit: (audit.situation.after, audit.situation.labels)):
        results: dict[tuple[str, ...], list[str]] = {}
        for one in group:
            results.setdefault(one.cells(), []).append(one.situation.language)
        for cells, languages in results.items():
            only = f", {languages[0]}" if len(results) > 1 else ""
            rows.append([labels[0] + only, name_labels(labels[1]), *cells])
    return markdown(HEADER, rows)


def name_labels(labels: Sequence[str]) -> str:
    """`'A' 'B' 'tie'`; more than three by the first and the last."""
    names = [repr(label) for label in labels]
    return " ".join(names if len(names) <= 3 else [names[0], "…", names[-1]])


def write_tables(path: Path, tables: dict[str, str]) -> None:
    """Write the tables of situations under their models' names."""
    from nexttoken.data.files import whole_file

    text = "\n".join(f"## {name}\n\n{table}\n" for name, table in tables.items())
    with whole_file(path) as part:
        part.write_text(f"# Label audit\n\n{text}", encoding="utf-8")
    print(f"wrote {path}")
