"""The rehearsal of a kernel folder: its notebook is run as Kaggle would run it, at the hidden test's size."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import PositiveFloat, PositiveInt

from nexttoken.commands.arguments import Arguments, OnePath
from nexttoken.commands.kernel_folder.build import CHECKOUT
from nexttoken.commands.kernel_folder.files import check_kernel, read_metadata
from nexttoken.commands.rehearsal.environments import HERE, python_of
from nexttoken.commands.rehearsal.isolation import KEPT, Limits, Outcome, run_notebook
from nexttoken.commands.rehearsal.place import lay_out_runs, link_bases, mount_data_set, shorten_within
from nexttoken.commands.rehearsal.verdict import GB, Comparison, compare, judge
from nexttoken.commands.submission import task_of
from nexttoken.data.whole_files import scratch_folder
from nexttoken.errors import UserError, first_five, one_line
from nexttoken.models.device_sheets import SHEETS, DeviceSheet, KaggleMachine
from nexttoken.progress import duration, seconds_of
from nexttoken.tasks.hidden_test import HiddenTest, write_hidden_test

ONLY_CPU = KaggleMachine("", hours=12, ram_gib=30, working_gib=20)
USUAL_SECONDS = 600.0  # of a rehearsal, where no scale= is given
MOST_MARGIN_SECONDS = 120.0
PASSES = re.compile(r"^(.*); -?\d+ s of \d+ are left$", re.M)  # as predict.py says at its end
# predict.py of this checkout, with the kernel's runs, packages and time limit, on the visible test.
REFERENCE = """
import sys; from pathlib import Path
sys.path.insert(0, sys.argv[2]); from in_kernel import Kernel
kernel = Kernel(*map(Path, sys.argv[3:])); kernel.lay_out(); kernel.install(); kernel.predict(sys.argv[1] or None)
"""


class RehearsalArguments(Arguments):
    paths: OnePath
    rows: PositiveInt = 25_000
    input_dir: Path | None = None
    base: str | None = None
    versions: str = HERE
    scale: PositiveFloat | None = None
    seed: int = 0


def rehearse(arguments: Sequence[str]) -> None:
    """Run the notebook of a kernel folder. Raises UserError with Kaggle's own error, its cause and the fix."""
    given = RehearsalArguments.parse(arguments)
    manifest = check_kernel(given.paths[0])
    sheet = sheet_of(given.paths[0])
    rehearse_kernel(given, manifest, limits_of(sheet.kaggle if sheet else None, given.scale), sheet)


def limits_of(machine: KaggleMachine | None, scale: float | None) -> Limits:
    """The limits of a machine of Kaggle (None: without a GPU), its hours divided by `scale`, or made ten minutes."""
    machine = machine or ONLY_CPU
    return Limits(
        seconds=machine.hours * 3600 / scale if scale else USUAL_SECONDS,
        memory=int((machine.ram_gib or ONLY_CPU.ram_gib or 0) * 2**30),
        disk=int((machine.working_gib or ONLY_CPU.working_gib or 0) * 2**30),
        scale=scale or machine.hours * 3600 / USUAL_SECONDS,
    )


def with_margin(limits: Limits, within: str | None) -> Limits:
    """The limits of a notebook that predicts `within` a time: what it does beside that is as long here as on Kaggle.

    So the time that `within` leaves there is not divided, but two minutes at most: a rehearsal should end.
    """
    if within is None:
        return limits
    seconds = seconds_of(within) or 0
    margin = limits.scale * (limits.seconds - seconds)
    return replace(limits, seconds=seconds + min(max(margin, 0), MOST_MARGIN_SECONDS))


def sheet_of(kernel: Path) -> DeviceSheet | None:
    """The sheet of the machine that kernel-metadata.json asks for, with all its GPUs; None for one without any."""
    shape = read_metadata(kernel)["machine_shape"]
    known = [sheet for sheet in SHEETS.values() if sheet.kaggle and sheet.kaggle.machine_shape == shape]
    return max(known, key=lambda sheet: sheet.gpus, default=None)


def rehearse_kernel(
    given: RehearsalArguments, manifest: Mapping[str, Any], limits: Limits, sheet: DeviceSheet | None = None
) -> None:
    """Rehearse the kernel folder of this manifest; the log and the submission are kept in <folder>.rehearsal."""
    kernel, python = given.paths[0], python_of(given.versions)
    variables = {"NEXTTOKEN_DEVICES": str(sheet.gpus if sheet else 1)}  # processes, here on the CPU
    with scratch_folder(kernel.resolve()) as place:
        run = lay_out_runs(kernel, manifest, place / "laid") / manifest["run"]
        task = task_of(run, given.input_dir)
        competition = Path(manifest["competition"]).name
        hidden = write_hidden_test(task, place / "input" / competition, given.rows, given.seed)
        say_hidden(hidden)
        data_set = mount_data_set(kernel, place / "input")
        link_bases(manifest["bases"], given.base, place / "input")
        within = shorten_within(kernel / "notebook.ipynb", place / "notebook.ipynb", limits.scale)
        (place / "working").mkdir()
        limits = with_margin(limits, within)
        outcome = run_notebook(place, python, limits, variables)
        kept = kernel.with_name(f"{kernel.name}.rehearsal")
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(place / "out", kept)
        say_outcome(outcome, limits, hidden, kept)
        submission = kept / f"submission{manifest['suffix']}"
        if verdict := judge(outcome, limits, hidden.task, submission):
            raise UserError(f"{verdict}; its log: {kept / 'log.txt'}")
        if sheet:
            bases = place / "laid" / "bases"
            say_forecast(run, hidden, sheet, str(bases) if bases.is_dir() else given.base)
        (place / "input" / competition).rename(place / "hidden")
        (place / "input" / competition).symlink_to(Path(task.input_dir).resolve())
        reference = place / "reference" / submission.name
        said = write_reference(data_set, place / "input", reference, python, variables, within)
        refuse_other(compare(submission, reference), passes_of(outcome.log), passes_of(said))
    print(f"pass: {kernel} answers {given.rows:,} rows")


def write_reference(
    data_set: Path, inputs: Path, path: Path, python: Path, variables: Mapping[str, str], within: str | None
) -> str:
    """Write the submission of this checkout's predict.py for the test in `inputs`, as the kernel calls it.

    Versions, runs and time limit are the kernel's. Returns what predict.py says.
    """
    path.parent.mkdir()
    folders = [CHECKOUT / "src" / "nexttoken" / "commands" / "kernel_folder", data_set, inputs, path.parent, CHECKOUT]
    kept = {name: os.environ[name] for name in (*KEPT, "HOME") if name in os.environ}
    command = [str(python), "-c", REFERENCE, within or "", *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, env={**kept, **variables}, check=False)
    if done.returncode or not path.is_file():
        raise UserError(f"predict.py fails on the visible test ({one_line(done.stderr[-300:])}); mend it first")
    return done.stdout


def passes_of(log: str) -> str:
    """The passes over the rows that a prediction with `within` was in time for, in its words; "" without a limit."""
    return max(PASSES.findall(log), default="")


def refuse_other(found: Comparison, passes: str, given: str) -> None:
    """Print how the visible rows compare. Raises UserError for other answers by the same passes."""
    if found.is_same:
        print(found)
    elif passes != given:
        print(f"{found}; the time sufficed for other passes: {passes}; for the visible rows alone: {given}")
    else:
        raise UserError(f"the kernel answers otherwise than predict.py: {found}; build the kernel folder again")


def say_hidden(hidden: HiddenTest) -> None:
    print(f"hidden test: {hidden.num_rows:,} rows, the first {hidden.num_visible:,} of them the visible ones")
    if hidden.refused:
        print(f"in no row, since the task refuses it: {', '.join(map(str, hidden.refused))}")


def say_outcome(outcome: Outcome, limits: Limits, hidden: HiddenTest, kept: Path) -> None:
    if outcome.not_isolated:
        print(f"not isolated here, for lack of permission or Linux's unshare: {first_five(outcome.not_isolated)}")
    used = f"{outcome.seconds:,.0f} of {limits.seconds:,.0f} s ({hidden.num_rows / outcome.seconds:,.1f} rows/s)"
    memory = f"{outcome.peak_memory / GB:.2f} of {limits.memory / GB:.0f} GB of memory"
    print(f"used: {used}, {memory}, {outcome.written / GB:.3f} of {limits.disk / GB:.0f} GB of disk; kept: {kept}")
    if passes := passes_of(outcome.log):
        print(f"answers: {passes}")


def say_forecast(run: Path, hidden: HiddenTest, sheet: DeviceSheet, base: str | None) -> None:
    """Print the time that the hidden test takes on the device, or the reason for which it cannot be said."""
    from nexttoken.runs.forecasts.run_forecast import forecast  # needs torch

    try:
        low, high = map(duration, forecast(run, hidden.num_rows, sheet, str(hidden.task.input_dir), base).seconds)
        print(f"forecast for {sheet}: {low} to {high}, of {sheet.kaggle.hours if sheet.kaggle else 0:g} hours")
    except UserError as error:
        print(f"no forecast for {sheet}: {error}")
