"""Compare runs with open answers by losses, chrF, ROUGE or the marks of a judge, and choose the best one.

python -m nexttoken judge output/dialogue/*                                          by the losses of held-out answers
python -m nexttoken judge output/dialogue/* judge=output/marks/<name> rows=50        by the marks of generated answers
python -m nexttoken judge data=input/dialogues task=dialogue judge=output/marks/<name> out=marks.csv

Arguments:
  path ...         run folders, or folders of runs
  judge=...        run folder of a model that gives marks (docs/judge.md)
  rows=50          number of held-out rows per fold that get a generated answer, where they have none (default: 0)
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
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from nexttoken.commands.arguments import Arguments
from nexttoken.errors import UserError, nearest
from nexttoken.report.ranking import MEASURES

if TYPE_CHECKING:
    import pandas as pd

    from nexttoken.runs.read_open import OpenRun


def read_rubric(given: str) -> str:
    """The text of the file of that name; `given` itself where there is none."""
    is_file = len(given) < 256 and given.strip() and Path(given).is_file()
    return Path(given).read_text(encoding="utf-8").strip() if is_file else given


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
        from nexttoken.commands.judge_marks import mark_data

        print(mark_data(given))
        return
    from nexttoken.runs.read_open import read_open_runs

    runs = read_open_runs(given.paths)
    task_dir = runs[0].folder.resolve().parent
    out = given.out or task_dir.parent / "judge" / task_dir.name  # in the task's folder, it would be taken for a run
    out.mkdir(parents=True, exist_ok=True)  # before hours of work, not after
    tables = measure(runs, given)
    print(report(runs, tables, given, out, f"python -m nexttoken judge {shlex.join(arguments)}"))


def measure(runs: "Sequence[OpenRun]", given: JudgeArguments) -> "list[pd.DataFrame]":
    """A table of rows per run. All outputs are generated first, and then marked together."""
    from nexttoken.commands.judge_marks import Judge
    from nexttoken.commands.judge_outputs import outputs_of, score_outputs

    judge = Judge.load(given.judge, given.base) if given.judge else None  # a wrong one is refused before generation
    outputs = [outputs_of(run, given.rows, given.input_dir, given.base) for run in runs]
    return score_outputs(runs, outputs, judge, given.rubric)


def report(
    runs: "Sequence[OpenRun]", tables: "Sequence[pd.DataFrame]", given: JudgeArguments, out: Path, command: str
) -> str:
    """Write judge.md, judge.json, judge.png and judged.csv into `out`; return the page and the chosen run."""
    import pandas as pd

    from nexttoken.data.files import whole_file, write_json, write_text
    from nexttoken.report.ranking import Comparison
    from nexttoken.report.variant_plot import variants_plot
    from nexttoken.report.variants import summary, variants_page

    by_run = list(zip(runs, tables, strict=True))
    comparison = Comparison.of({(run.variant, run.seed): table for run, table in by_run}, given.by)
    ranking = comparison.ranking
    best = [run for run in runs if run.variant == ranking.variants[ranking.best]]
    chosen = min(best, key=lambda run: run.seed).folder  # not the seed that happened to do best
    page = f"{title(runs, given)}\n\n{variants_page(comparison)}"
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
    return f"{page}\n\n{end}\n\nchosen: {chosen}\npython predict.py run={chosen}"


def title(runs: "Sequence[OpenRun]", given: JudgeArguments) -> str:
    tasks = " and ".join(dict.fromkeys(run.task for run in runs))
    seeds = ", ".join(str(seed) for seed in sorted({run.seed for run in runs}))
    judged = f"; marks by {given.judge}" if given.judge else ""
    return f"## {tasks}: {len({run.variant for run in runs})} variants in {len(runs)} runs (seeds {seeds}){judged}"
