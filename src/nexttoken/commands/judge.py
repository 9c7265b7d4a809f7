"""Compare runs with open answers by losses, chrF, ROUGE or the marks of a judge, and choose the best one.

python -m nexttoken judge output/dialogue/*                                          by the losses of held-out answers
python -m nexttoken judge output/dialogue/* judge=output/marks/<name> rows=50        by the marks of generated answers
python -m nexttoken judge data=input/dialogues task=dialogue judge=output/marks/<name> out=marks.csv

Arguments:
  path ...         run folders, or folders of runs
  judge=...        run folder of a model that gives marks (docs/judge.md)
  rows=0           number of held-out rows per fold that get a generated answer where they have none
  by=...           measure that decides: loss_per_token, loss_per_character, chrf, rouge_l or mark
  rubric=...       rubric of rows that have none: a text, or a file
  out=...          folder for judge.md, judge.json, judge.png and judged.csv (default: output/judge/<task>)
  input_dir=...    folder of the runs' data on this machine
  base=...         folder or hub name of the base model on this machine

To mark a training set, a dialogue as a whole, for the transform KeepMarked:
  data=...         input_dir of the task, or one of its files
  task=...         dialogue or instruct
  out=...          file to write: id, mark (the expected mark), and the probability of each mark, such as p0 to p4
"""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Self

import numpy as np
import pandas as pd
from pydantic import AfterValidator, Field, model_validator

from nexttoken.build import prepare
from nexttoken.commands.arguments import Arguments
from nexttoken.commands.entry import compose
from nexttoken.commands.judge_outputs import Judge, answer_to_mark, outputs_of, score_outputs
from nexttoken.data.files import whole_file, write_json, write_text
from nexttoken.data.typed_texts import typed_override, with_breaks
from nexttoken.data.whole_files import make_folder
from nexttoken.errors import UserError, nearest
from nexttoken.metrics.decisions import expected_marks
from nexttoken.report.ranking import MEASURES, Comparison
from nexttoken.report.terminal import show
from nexttoken.report.variants import summary, variants_page, variants_plot
from nexttoken.runs.read_open import OpenRun, read_open_runs
from nexttoken.tasks.marks import write_marks
from nexttoken.types import Example


def read_rubric(given: str) -> str:
    """The text of the file of that name; `given` with its typed line breaks where there is none."""
    is_file = len(given) < 256 and given.strip() and Path(given).is_file()
    return Path(given).read_text(encoding="utf-8").strip() if is_file else with_breaks(given)


class JudgeArguments(Arguments):
    paths: tuple[Path, ...] = ()
    judge: Path | None = None
    rows: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    by: str = ""
    rubric: Annotated[str, AfterValidator(read_rubric)] = ""
    out: Annotated[Path, AfterValidator(Path.expanduser)] | None = None
    input_dir: str | None = None
    base: str | None = None
    data: str = ""
    task: str = ""

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        if bool(self.paths) == bool(self.data):
            raise UserError("expected either run folders, such as output/dialogue/*, or data=... with rows to mark")
        if missing := [path for path in self.paths if not path.exists()]:
            raise UserError(f"{missing[0]} is not there; give run folders such as output/dialogue/*")
        if self.data and not (self.judge and self.out and self.task):
            example = "task=dialogue judge=output/marks/<name> out=marks.csv"
            raise UserError(f"data={self.data} needs task=, judge= and out=; write {example}")
        if self.by and self.by not in MEASURES:
            raise UserError(f"by={self.by} is no measure; {nearest(self.by, MEASURES)}")
        return self


def main(arguments: Sequence[str]) -> None:
    given = JudgeArguments.parse(arguments)
    if given.data:
        print(mark_data(given))
        return
    runs = read_open_runs(given.paths)
    task_dir = runs[0].folder.resolve().parent
    out = given.out or task_dir.parent / "judge" / task_dir.name  # in the task's folder, it would be taken for a run
    make_folder(out)  # before hours of work, not after
    judge = Judge.load(given.judge, given.base) if given.judge else None  # a wrong one is refused before generation
    outputs = [outputs_of(run, given.rows, given.input_dir, given.base) for run in runs]
    tables = score_outputs(runs, outputs, judge, given.rubric)
    show(report(runs, tables, given, out, f"python -m nexttoken judge {shlex.join(arguments)}"))


def report(
    runs: Sequence[OpenRun], tables: Sequence[pd.DataFrame], given: JudgeArguments, out: Path, command: str
) -> str:
    """Write judge.md, judge.json, judge.png and judged.csv into `out`; return the page and the chosen run."""
    by_run = list(zip(runs, tables, strict=True))
    comparison = Comparison.of({(run.variant, run.seed): table for run, table in by_run}, given.by)
    ranking = comparison.ranking
    best = [run for run in runs if run.variant == ranking.variants[ranking.best]]
    chosen = min(best, key=lambda run: run.seed).folder  # not the seed that happened to do best
    tasks, seeds = " and ".join(dict.fromkeys(run.task for run in runs)), sorted({run.seed for run in runs})
    counts = f"{len({run.variant for run in runs})} variants in {len(runs)} runs (seeds {', '.join(map(str, seeds))})"
    title = f"## {tasks}: {counts}" + (f"; marks by {given.judge}" if given.judge else "")
    page = f"{title}\n\n{variants_page(comparison)}"
    key = variants_plot(comparison, out / "judge.png")
    write_text("\n\n".join([page, "![Variants](judge.png)", *key, f"Command: `{command}`"]), out / "judge.md")
    facts = {
        "chosen": str(chosen),
        "measure": comparison.measure.key,
        "num_rows": ranking.scored.num_rows,
        "seeds": list(ranking.scored.seeds),
        "same_ranking_with_every_seed": not ranking.swapped,
        "judge": str(given.judge) if given.judge else None,
        "variants": summary(comparison),
        "command": command,
    }
    write_json(facts, out / "judge.json")
    rows = [table.assign(variant=run.variant, seed=run.seed, run=str(run.folder)) for run, table in by_run]
    with whole_file(out / "judged.csv") as part:
        pd.concat(rows, ignore_index=True).to_csv(part, index=False)
    end = f"wrote judge.md, judge.json, judge.png and judged.csv to {out}"
    return (
        f"{page}\n\n{end}\nchosen: {chosen}\nnext: python predict.py {shlex.join([typed_override('run', str(chosen))])}"
    )


def mark_data(given: JudgeArguments) -> str:
    """Write the marks of all training rows of `given.data` to `given.out`; return their distribution."""
    assert given.judge  # with data=, the arguments are refused without judge= and out=
    assert given.out
    judge = Judge.load(given.judge, given.base)
    examples = read_training_examples(Path(given.data), given.task)
    probs = judge.probs([answer_to_mark(example, given.rubric) for example in examples])
    write_marks(given.out, [example.id for example in examples], probs, judge.lowest)
    above_lowest = expected_marks(probs, 0)
    counts = np.bincount(np.rint(above_lowest).astype(np.int64), minlength=probs.shape[1])
    spread = ", ".join(f"{judge.lowest + k}: {count:,}" for k, count in enumerate(counts.tolist()))
    mean = f"{len(examples):,} rows, mean mark {judge.lowest + above_lowest.mean():.2f}"
    return f"{mean}; by the nearest whole mark {spread}\nwrote {given.out}"


def read_training_examples(path: Path, task: str) -> list[Example]:
    """The task's training examples before any transform. Raises UserError where there are none with an answer."""
    overrides = [f"task={task}", f"input_dir='{path.parent if path.is_file() else path}'"]
    if path.is_file():
        overrides.append(f"task.train_files=['{path.name}']")
    parts, _ = prepare(compose("train", overrides), overrides)
    examples = parts.task.read("train")
    if not examples:
        raise UserError(f"{path} has no rows to be marked; give an input_dir of task={task}, or a file of it")
    if not any(example.answer for example in examples):
        raise UserError(f"task={task} has no written answers to be marked; give task=dialogue or task=instruct")
    return examples
