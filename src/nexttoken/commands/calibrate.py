"""Calibrate the probabilities of a trained run on its out-of-fold rows; predict.py applies what is kept.

python -m nexttoken calibrate run=output/lmsys/<name>

Arguments:
  run=...          the run folder, with two finished folds or more, or the folder of a blend

Temperature, vector and matrix scaling are tried. Each fold is scored by a method that was chosen and fitted on the
other folds, so that the gain is honest. The choice is kept only where the 95 % interval of the gain in log loss, over
groups of near-duplicate rows, is above zero: calibration.json in the run folder. Without that file the run predicts
as before. A run that was trained or asked in both orders of a pair stays the same for both answers.
"""

from collections.abc import Sequence

from nexttoken.commands.arguments import Arguments, RunPath
from nexttoken.report.terminal import show, show_line


class CalibrateArguments(Arguments):
    run: RunPath


def main(arguments: Sequence[str]) -> None:
    given = CalibrateArguments.parse(arguments)
    from dataclasses import asdict, replace

    from nexttoken.report.markdown import difference_cell, interval_cell
    from nexttoken.report.tables import out_of_fold_table
    from nexttoken.runs import calibration_fit as fitting
    from nexttoken.runs.asking import mean_scores
    from nexttoken.runs.calibration import FILE, save_calibration, swap_of
    from nexttoken.runs.folder import FoldFolder
    from nexttoken.runs.read import read_run

    run = read_run(given.run)
    fitting.refuse_gate(given.run)
    fitting.refuse_few_rows(run)
    swap = swap_of(FoldFolder(run.folds[0].folder))
    found = fitting.fit_calibration(run, swap)
    after = fitting.calibrated(run, found)
    single = {method: fitting.cross_fitted(method, run, swap) for method in fitting.methods_of(run)}
    print(f"{given.run}: {len(run.oof):,} out-of-fold rows, folds {' '.join(str(fold.number) for fold in run.folds)}\n")
    show(out_of_fold_table({"as trained": run, **single, "chosen within the other folds": after}))
    gain, interval = fitting.gain_of(after, run)
    print(f"\ngain in log loss: {difference_cell(gain)} (95 % interval {interval_cell(interval, '+')})")
    path = given.run / FILE
    if interval.low <= 0 or found.scaling.method == "none":
        path.unlink(missing_ok=True)
        print("not kept: no gain is shown; predict.py answers with the probabilities as trained")
        return
    scores = mean_scores([fold.metrics for fold in after.folds])
    details = {"gain": gain, "interval": asdict(interval), "treats_sides_alike": swap is not None}
    save_calibration(replace(found, scores=scores), details, given.run)
    alike = ", the same for both answers of a pair" if swap else ""
    show_line(f"kept: {found.scaling.method} scaling{alike}, in {path}; predict.py applies it")
