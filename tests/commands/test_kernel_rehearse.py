"""Broken kernels end with Kaggle's own error, its cause and the fix; a sound one passes. No model is needed for it."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nexttoken.commands.kernel_folder.files import check_kernel
from nexttoken.commands.kernel_folder.packages import ADAPTER, ALWAYS, PARQUET, missing_packages, read_image
from nexttoken.commands.rehearsal import isolation as kernel_isolation
from nexttoken.commands.rehearsal import rehearse as kernel_rehearse
from nexttoken.commands.rehearsal.environments import IMAGES, image_names, python_of
from nexttoken.commands.rehearsal.isolation import Limits, usable_namespaces
from nexttoken.commands.rehearsal.rehearse import (
    RehearsalArguments,
    limits_of,
    passes_of,
    refuse_other,
    rehearse_kernel,
    sheet_of,
    with_margin,
)
from nexttoken.commands.rehearsal.verdict import Comparison, compare
from nexttoken.errors import UserError
from support.kernels import ANSWER, write_kernel

LIMITS = Limits(seconds=20, memory=2 * 10**9, disk=50 * 10**6, scale=60)
needs_namespaces = pytest.mark.skipif(not usable_namespaces(), reason="this user may make no namespaces")


@pytest.fixture(autouse=True)
def _no_reference(monkeypatch):
    """predict.py is compared with in the tests of real runs: here every kernel's answers are taken for its own."""

    def own(data_set: Path, inputs: Path, path: Path, *_: object) -> str:
        path.parent.mkdir()
        (inputs.parent / "out" / path.name).rename(path)
        return ""

    monkeypatch.setattr(kernel_rehearse, "write_reference", own)


def rehearse(kernel: Path, limits: Limits = LIMITS, rows: int = 300, *arguments: str) -> None:
    given = RehearsalArguments.parse([str(kernel), f"rows={rows}", *arguments])
    rehearse_kernel(given, check_kernel(kernel), limits)


def error_of(kernel: Path, limits: Limits = LIMITS) -> str:
    with pytest.raises(UserError) as caught:
        rehearse(kernel, limits)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_sound_kernel_passes_and_says_what_it_used(tmp_path, capsys):
    kernel = write_kernel(tmp_path / "kernel", ANSWER)
    rehearse(kernel)
    said = capsys.readouterr().out
    assert "hidden test: 300 rows, the first 250 of them the visible ones" in said
    assert re.search(r"used: .* of 20 s .* of 2 GB of memory, .* of 0 GB of disk", said)
    assert said.endswith(f"pass: {kernel} answers 300 rows\n")
    written = (tmp_path / "kernel.rehearsal" / "submission.csv").read_text().splitlines()
    assert len(written) == 301
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


BROKEN = {
    "Notebook Threw Exception: cell 2 raised KeyError: 'gone'; mend that cell": ["{}['gone']"],
    "Submission CSV Not Found: no submission.csv lies in the working folder": ["print('done')"],
    "Submission Scoring Error: submission.csv must have the ids of test.csv, but lacks": ["write(TEST, 250)"],
    "Notebook Exceeded Allowed Compute: out of memory: ": ["hog = bytearray(3 * 10**9)"],
    "Notebook Threw Exception: it was ended by signal 11": ["import signal; os.kill(os.getpid(), signal.SIGSEGV)"],
    "Notebook Exceeded Allowed Compute: out of memory": ["import signal; os.kill(os.getpid(), signal.SIGKILL)"],
}


@pytest.mark.slow
@pytest.mark.parametrize("expected", BROKEN)
def test_a_broken_kernel_ends_with_kaggle_s_error_and_a_fix(expected, tmp_path):
    line = error_of(write_kernel(tmp_path / "kernel", *BROKEN[expected]))
    assert line.startswith(expected)
    assert line.endswith(f"its log: {tmp_path / 'kernel.rehearsal' / 'log.txt'}")


def endless(mark: Path) -> str:
    """A cell that starts a process which touches `mark` again and again."""
    child = f"import time, pathlib\\nwhile True: time.sleep(0.05); pathlib.Path({str(mark)!r}).touch()"
    start = f"import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', \"{child}\"])"
    return f"{start}\nprint('reading')\ntime.sleep(60)"


def has_ended(mark: Path) -> bool:
    time.sleep(0.3)
    mark.unlink()
    time.sleep(0.5)
    return not mark.exists()


@pytest.mark.slow
def test_a_kernel_that_does_not_end_is_a_timeout_with_all_that_it_started(tmp_path):
    kernel = write_kernel(tmp_path / "kernel", endless(tmp_path / "alive"))
    line = error_of(kernel, Limits(2, LIMITS.memory, LIMITS.disk))
    assert line.startswith("Notebook Timeout: it was not done after 2 s, and said last: reading; shorten within=")
    assert has_ended(tmp_path / "alive")


@pytest.mark.slow
@needs_namespaces
def test_a_rehearsal_that_is_ended_leaves_no_process_and_no_folder(tmp_path):
    kernel = write_kernel(tmp_path / "kernel", endless(tmp_path / "alive"))
    with subprocess.Popen([sys.executable, "-m", "nexttoken", "kernel", "rehearse", kernel, "rows=300"]) as rehearsal:
        while not (tmp_path / "alive").exists():
            time.sleep(0.1)
        rehearsal.terminate()
    assert rehearsal.returncode == 143
    assert has_ended(tmp_path / "alive")
    assert {path.name for path in tmp_path.iterdir()} == {"kernel", "run of kernel"}


@pytest.mark.slow
def test_memory_of_several_processes_counts_together(tmp_path):
    child = "import time; hog = b'x' * (900 * 10**6); time.sleep(20)"
    cell = f"import subprocess, sys, time\n[subprocess.Popen([sys.executable, '-c', {child!r}]) for _ in range(3)]"
    line = error_of(write_kernel(tmp_path / "kernel", f"{cell}\ntime.sleep(20)"))
    assert re.match(r"Notebook Exceeded Allowed Compute: out of memory: 2\.\d GB were used, of 2\.0 GB", line)


@needs_namespaces
def test_a_full_disk_a_write_to_the_input_and_a_connection_are_errors(tmp_path):
    fill = write_kernel(tmp_path / "fill", "(WORKING / 'large').write_bytes(bytes(60 * 10**6))")
    assert error_of(fill).startswith("Notebook Exceeded Allowed Compute: out of disk: 0.1 GB were written, of 0.1 GB")
    write = write_kernel(tmp_path / "write", "(INPUT / 'new').write_text('x')")
    assert "cell 2 raised OSError: [Errno 30] Read-only file system" in error_of(write)
    call = write_kernel(tmp_path / "call", "import socket; socket.create_connection(('127.1.2.3', 9), 3)")
    assert "Notebook Threw Exception" in error_of(call)


@needs_namespaces
def test_the_checkout_s_package_and_the_user_s_caches_are_not_there(tmp_path):
    cell = "import nexttoken.types"
    assert "ModuleNotFoundError: No module named 'nexttoken.types'" in error_of(write_kernel(tmp_path / "a", cell))
    cell = "assert not any(Path.home().iterdir()) and 'rehearsal' not in os.environ.get('USER', ''), Path.home()"
    rehearse(write_kernel(tmp_path / "b", cell, ANSWER))


def test_without_namespaces_a_line_says_what_was_not_isolated(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(kernel_isolation, "usable_namespaces", lambda: ())
    rehearse(write_kernel(tmp_path / "kernel", ANSWER))
    expected = "not isolated here, for lack of permission or Linux's unshare: the network, the read-only input, "
    assert expected + "the disk limit, the package of this checkout\n" in capsys.readouterr().out


def test_time_limits_in_the_notebook_are_divided_by_the_scale(tmp_path):
    rehearse(write_kernel(tmp_path / "kernel", "within='8h30m'\nprint('within', within)", ANSWER))
    assert "within 510.0s" in (tmp_path / "kernel.rehearsal" / "log.txt").read_text()


def test_a_changed_kernel_folder_and_too_few_rows_are_one_line_before_anything_runs(tmp_path):
    kernel = write_kernel(tmp_path / "kernel", ANSWER)
    with pytest.raises(UserError, match=r"rows=20 is less than the visible .*test.csv has, 250; give more"):
        rehearse(kernel, rows=20)
    notebook = kernel / "notebook.ipynb"
    notebook.write_text(json.dumps(json.loads(notebook.read_text()), indent=1))
    assert error_of(kernel).startswith(f"{notebook} was changed after the kernel folder was built; build")
    with pytest.raises(UserError, match="is no kernel folder"):
        rehearse(tmp_path)


def test_visible_rows_are_compared_by_bytes_numbers_and_texts(tmp_path):
    def compared(own: str, given: str) -> Comparison:
        for name, text in (("own.csv", own), ("given.csv", given)):
            (tmp_path / name).write_text(f"id,p\n{text}\n")
        return compare(tmp_path / "own.csv", tmp_path / "given.csv")

    assert compared("a,0.5\nb,0.25\nc,1", "a,0.5\nb,0.25") == Comparison(2, 2, 0.0, 0)
    assert compared("a,0.5000001\nb,0.25", "a,0.5\nb,0.25").is_same
    assert "1 of 2 visible rows" in str(compared("a,0.5000001\nb,0.25", "a,0.5\nb,0.25"))
    assert not compared("a,0.6\nb,0.25", "a,0.5\nb,0.25").is_same
    assert compared("a,B C\nb,A", "a,C B\nb,A") == Comparison(2, 1, 0.0, 1)
    with pytest.raises(UserError, match=r"own.csv has id=b, p=1 where predict.py writes id=a, p=1"):
        compared("b,1\na,1", "a,1\nb,1")


def test_other_answers_are_an_error_unless_the_time_sufficed_for_other_passes(capsys):
    other, passes = (
        Comparison(40, 2, 0.3, 0),
        passes_of("fold 0: 9/40 rows\nfold 0 100%, fold 1 20%; 3 s of 60 are left\n"),
    )
    assert passes == "fold 0 100%, fold 1 20%"
    refuse_other(other, passes, "fold 0 100%, fold 1 100%")
    assert "other passes: fold 0 100%, fold 1 20%; for the visible rows alone: fold 0" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"the kernel answers otherwise than predict.py: 2 of 40 visible rows"):
        refuse_other(other, passes, passes)


def test_the_listed_images_are_in_the_range_that_kernels_are_built_for():
    for name in image_names():
        image = read_image(IMAGES / f"{name}.txt")
        brought = {package.name for package in missing_packages(ALWAYS | ADAPTER | PARQUET, image)}
        assert not brought & {"transformers", "numpy", "pandas", "pydantic", "pyarrow", "accelerate"}
    with pytest.raises(UserError, match=r"versions=older is not known; did you mean 'oldest'?"):
        python_of("older")


def test_the_machine_s_limits_and_number_of_gpus_follow_from_the_metadata(tmp_path):
    sheet = sheet_of(write_kernel(tmp_path / "kernel", ANSWER))
    assert (sheet.name, sheet.kaggle.hours, sheet.gpus) == ("t4x2", 9, 2)
    limits = limits_of(sheet.kaggle, None)
    assert (limits.seconds, limits.scale) == (600, 54)
    assert limits_of(sheet.kaggle, 9).seconds == 3600
    assert limits_of(None, 12).seconds == 3600
    assert with_margin(limits, None) == limits
    assert with_margin(limits, "566.7s").seconds == pytest.approx(686.7)  # of half an hour that 8h30m leaves
    assert with_margin(limits, "599s").seconds == 599 + 54
    assert with_margin(limits, "600s").seconds == 600


def test_a_base_model_of_kaggle_s_is_given_as_a_folder(tmp_path):
    cell = "assert (INPUT / 'base' / 'transformers' / 'small' / '1' / 'config.json').is_file()"
    kernel = write_kernel(tmp_path / "kernel", cell, ANSWER, bases={"base": "me/base/transformers/small/1"})
    with pytest.raises(UserError, match=r"the base model base is me/base/transformers/small/1 on Kaggle; name"):
        rehearse(kernel)
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").touch()
    rehearse(kernel, LIMITS, 300, f"base={tmp_path / 'base'}")
