"""Show the tokens that spell the labels and how they will be read, without loading weights.

python -m nexttoken labels                                           the model built from scratch
python -m nexttoken labels model=mistral_7b prompt=conversation
python -m nexttoken labels model=mistral_7b,llama3_8b markdown=audit.md
python -m nexttoken labels model.name_or_path=<hub name or folder>

Arguments:
  model=...        one choice of train.py's models, or several with commas between
  markdown=...     also write the tables to this file
  key=value ...    any other setting of train.py
"""

import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from nexttoken import pipeline
from nexttoken.build import Parts, prepare
from nexttoken.commands.arguments import Arguments
from nexttoken.commands.entry import compose
from nexttoken.data.files import write_text
from nexttoken.errors import UserError, visible
from nexttoken.prompts.label_audit import Audit, audit_prompt, audit_situations
from nexttoken.report.markdown import PAGE_WIDTH, markdown
from nexttoken.transforms import apply_transforms
from nexttoken.types import Example

NUM_ROWS = 64  # enough different ends of prompts to see whether the labels' tokens depend on them
HEADER = ["the label stands behind", "labels", "tokens per label", "read in", "re-joined", "verdict"]


class LabelsArguments(Arguments):
    model: str | None = None
    markdown: Path | None = None
    overrides: tuple[str, ...] = ()

    @property
    def overrides_by_model(self) -> list[tuple[str, ...]]:
        models = [(f"model={model}",) for model in self.model.split(",")] if self.model else [()]
        return [model + self.overrides for model in models]


def main(arguments: Sequence[str]) -> None:
    """Audit one model after the other; one that is refused is an error, but does not stop the others."""
    given = LabelsArguments.parse(arguments)
    models = given.overrides_by_model
    tables: dict[str, str] = {}
    errors: list[str] = []
    for overrides in models:
        name = " ".join(overrides) or "model=scratch"
        try:
            tables[name], refusal = audit(overrides)
        except UserError as error:
            refusal = str(error)
            if len(models) > 1:
                print(f"{name}: {refusal}", file=sys.stderr, flush=True)
        errors += [refusal] if refusal else []
    if given.markdown and tables:
        sections = (f"## {name}\n\n{table}" for name, table in tables.items())
        write_text("\n\n".join(["# Label audit", *sections]), given.markdown)
        print(f"wrote {given.markdown}")
    if errors:
        raise UserError(errors[0] if len(models) == 1 else f"{len(errors)} of {len(models)} models were refused")


def audit(overrides: Sequence[str]) -> tuple[str, str]:
    """Print one configuration's audit; return the table of situations, and the reason to refuse its labels or "".

    Raises UserError for a wrong configuration and for a missing tokenizer.
    """
    parts, _ = prepare(compose("train", overrides), overrides)
    if not parts.task.classes:
        raise UserError(f"the answers of task {parts.task.name} are open texts, so there are no labels to audit")
    if not parts.prompt.labels:
        raise UserError("head=candidates scores a row's candidates by their own texts; there are no labels to audit")
    examples = pipeline.read(parts, "train")
    tokenizer = load_tokenizer(parts, examples)
    print(f"{parts.settings.model.name_or_path or 'built from the training text'}: {len(tokenizer):,} tokens")
    refusal = ""
    try:
        shown = parts.inference.training_views(examples[:NUM_ROWS], examples)
        print(visible(str(audit_prompt(tokenizer, parts.prompt, parts.settings.max_tokens, shown))))
    except UserError as error:
        refusal = str(error)
        print(f"refused: {refusal}")
    table = situations_table(audit_situations(tokenizer))
    print(f"\n{table}\n", flush=True)
    return table, refusal


def load_tokenizer(parts: Parts, examples: list[Example]) -> Any:
    """The tokenizer that train.py would use; one that is built from scratch learns from the fold's training rows."""
    texts: Sequence[str] = ()
    if parts.settings.model.name_or_path is None:
        from nexttoken.training.learner import training_texts

        rows = pipeline.choose_rows(parts, examples, pipeline.split(parts, examples)).train
        shown = parts.inference.training_views(apply_transforms(rows, parts.train_transforms), rows)
        texts = training_texts(parts.prompt, shown)
    from nexttoken.models.load import load_tokenizer

    return load_tokenizer(parts.settings.model, texts)


def situations_table(audits: Sequence[Audit]) -> str:
    """A Markdown table, one line for both languages where they agree."""
    rows = []
    for (after, labels), group in groupby(audits, key=lambda audit: (audit.situation.after, audit.situation.labels)):
        languages: dict[tuple[str, ...], str] = {}  # the first language with these cells
        for one in group:
            languages.setdefault(one.cells(), one.situation.language)
        names = [repr(label) for label in labels]
        shown = " ".join(names if len(names) <= 3 else [names[0], "…", names[-1]])
        for cells, language in languages.items():
            rows.append([f"{after}, {language}" if len(languages) > 1 else after, shown, *cells])
    return markdown(HEADER, rows, PAGE_WIDTH)  # several rows have the same name: one table, or they are mixed up
