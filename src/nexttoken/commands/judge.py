"""Runs with open answers compared by losses, chrF, ROUGE or the marks of a judge, and the best one chosen.

python -m nexttoken judge output/dialogue/*          by what the held-out answers cost
    judge=output/marks/<name>   by the marks that this judge gives to what they wrote (docs/judge.md)
    rows=50         so many outputs per fold are generated where a run has fewer
    by=...          what decides: loss_per_token, loss_per_character, chrf, rouge_l or mark
    rubric=...      for rows that bring none: a text, or a file
    out=...         where judge.md, judge.json, judge.png and judged.csv go; output/judge/<task>
    input_dir=...   where the runs' data lies on this machine
    base=...        where the base model lies on this machine, as for predict.py

python -m nexttoken judge data=input/dialogues task=dialogue judge=output/marks/<name> out=marks.csv
    marks training rows, each dialogue as a whole, for the transform KeepMarked: id, mark (the expected one), p0 to p4;
    data= is an input_dir of the task, or one file of it
"""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from nexttoken.commands.arguments import Arguments
from nexttoken.errors import UserError, nearest
from nexttoken.report.ranking import MEASURES

if TYPE_CHECKING:
    import pandas as pd

    from nexttoken.report.ranking import Comparison
    from nexttoken.runs.read_open import OpenRun


def read_rubric(given: str) -> str:
    """The text of the file of that name, else the words themselves."""
    is_file = len(given) < 256 and given.strip() and Path(given).is_file()
    return Path(given).read_text(encoding="utf-8").strip() if is_file else given


class JudgeArguments(Arguments):
    paths: tuple[Path, ...] = ()
    judge: Path | None = None
    rows: Annotated[int, Field(ge=0, le=1_000_000)] = 0  # outputs wanted per fold; 0: those that are there
    by: str = ""
    rubric: Annotated[str, AfterValidator(read_rubric)] = ""
    out: Annotated[Path, AfterValidator(Path.expanduser)] | None = None
    input_dir: str | None = None
    base: str | None = None
    data: str = ""
    task: str = ""

    @model_validator(mode="after")
    def _refuse_what_does_not_go_together(self) -> Self:
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
    out = given.out or default_out(runs)
    out.mkdir(parents=True, exist_ok=True)  # before hours of work, not after
    tables = measure(runs, given)
    print(report(runs, tables, given, out, f"python -m nexttoken judge {shlex.join(arguments)}"))


def default_out(runs: "Sequence[OpenRun]") -> Path:
    """Beside the task's folder, not in it: `output/dialogue/*` shall still name runs alone."""
    task_dir = runs[0].folder.resolve().parent
    return task_dir.parent / "judge" / task_dir.name


def measure(runs: "Sequence[OpenRun]", given: JudgeArguments) -> "list[pd.DataFrame]":
    """A table of rows per run; outputs are generated first, then the judge is asked about all of them at once."""
    from nexttoken.commands.judge_marks import Judge
    from nexttoken.commands.judge_outputs import measured, written_by

    judge = Judge.load(given.judge, given.base) if given.judge else None  # a wrong one is refused before generation
    written = [written_by(one, given.rows, given.input_dir, given.base) for one in runs]
    return measured(runs, written, judge, given.rubric)


def report(
    runs: "Sequence[OpenRun]", tables: "Sequence[pd.DataFrame]", given: JudgeArguments, out: Path, command: str
) -> str:
    """Write judge.md, judge.json, judge.png and judged.csv into `out`; return what is to be printed."""
    import pandas as pd

    from nexttoken.data.files import whole_file, write_json
    from nexttoken.report.ranking import Comparison
    from nexttoken.report.variant_plot import variants_plot
    from nexttoken.report.variants import variants_page

    named = {(one.variant, one.seed): table for one, table in zip(runs, tables, strict=True)}
    comparison = Comparison.of(named, given.by)
    page = f"{title(runs, given)}\n\n{variants_page(comparison)}"
    key = variants_plot(comparison, out / "judge.png")
    shown = "\n\n".join([page, "![Variants](judge.png)", *key, f"Command: `{command}`"])
    with whole_file(out / "judge.md") as part:
        part.write_text(shown + "\n", encoding="utf-8")
    best = chosen_run(runs, comparison)
    write_json(describe(comparison, best, given, command), out / "judge.json")
    rows = [
        table.assign(variant=one.variant, seed=one.seed, run=str(one.folder))
        for one, table in zip(runs, tables, strict=True)
    ]
    with whole_file(out / "judged.csv") as part:
        pd.concat(rows, ignore_index=True).to_csv(part, index=False)
    end = f"wrote judge.md, judge.json, judge.png and judged.csv to {out}"
    return f"{page}\n\n{end}\n\nchosen: {best.folder}\npython predict.py run={best.folder}"


def title(runs: "Sequence[OpenRun]", given: JudgeArguments) -> str:
    tasks = " and ".join(dict.fromkeys(one.task for one in runs))
    seeds = ", ".join(str(seed) for seed in sorted({one.seed for one in runs}))
    variants = len({one.variant for one in runs})
    judged = f"; marks by {given.judge}" if given.judge else ""
    return f"## {tasks}: {variants} variants in {len(runs)} runs (seeds {seeds}){judged}"


def chosen_run(runs: "Sequence[OpenRun]", comparison: "Comparison") -> "OpenRun":
    """The best variant's run with the lowest seed: the seed that happened to do best is not chosen."""
    best = comparison.ranking.variants[comparison.ranking.best]
    return min((one for one in runs if one.variant == best), key=lambda one: one.seed)


def describe(comparison: "Comparison", best: "OpenRun", given: JudgeArguments, command: str) -> dict[str, Any]:
    from nexttoken.report.variants import summary

    return {
        "chosen": str(best.folder),
        "measure": comparison.measure.key,
        "num_rows": comparison.ranking.scored.num_rows,
        "seeds": list(comparison.ranking.scored.seeds),
        "same_ranking_with_every_seed": not comparison.ranking.swapped,
        "judge": str(given.judge) if given.judge else None,
        "variants": summary(comparison),
        "command": command,
    }
