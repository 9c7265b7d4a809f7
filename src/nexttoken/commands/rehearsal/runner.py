"""A program that runs the code cells of a notebook under limits of time and memory, and notes how it ended.

    python runner.py watch <place> <seconds> <bytes of memory>
    python runner.py cells <notebook>

`watch` starts `cells` in <place>/working, writes <place>/out/log.txt and outcome.json, and copies the submission beside
them. The program runs in the kernel's environment, so it needs the standard library alone.
"""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

POLL_SECONDS = 0.2


def run_cells(notebook: Path) -> None:
    """Execute the code cells in turn. A cell that raises ends the program with its traceback and status 1."""
    cells = [cell for cell in json.loads(notebook.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    scope = {"__name__": "__main__"}
    for number, cell in enumerate(cells, start=1):
        try:
            exec(compile("".join(cell["source"]), f"<cell {number}>", "exec"), scope)  # noqa: S102 - as Kaggle does
        except BaseException as error:  # SystemExit ends a notebook as an error does
            traceback.print_exc()
            sys.stdout.flush()
            print(f"cell {number} raised {type(error).__name__}: {error}", file=sys.stderr)
            sys.exit(1)


def watch(place: Path, seconds: float, memory: int) -> None:
    """Run the notebook of `place`; kill it and all that it started when the time is over."""
    start, out, working = time.monotonic(), place / "out", place / "working"
    disk, written, used, status = shutil.disk_usage(working).used, 0, 0, None
    with (out / "log.txt").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, __file__, "cells", str(place / "notebook.ipynb")],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=working,
            start_new_session=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (memory, memory)),
        )
        while status is None and time.monotonic() - start < seconds:
            with suppress(subprocess.TimeoutExpired):
                status = child.wait(POLL_SECONDS)
            written = max(written, shutil.disk_usage(working).used - disk)
            used = max(used, memory_of(child.pid))
            if used > memory:  # of several processes, each of which stays below it
                kill_group(child.pid)
        kill_group(child.pid)
        child.wait()
    outcome = {
        "status": status,  # None: the time was over
        "seconds": time.monotonic() - start,
        "peak_memory": max(used, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024),
        "written": written,  # at most at any time: a notebook tidies up
    }
    for path in working.glob("submission.*"):
        shutil.copyfile(path, out / path.name)
    (out / "outcome.json").write_text(json.dumps(outcome), "utf-8")


def memory_of(session: int) -> int:
    """Bytes of memory that the processes of a session hold, without mapped files."""
    total = 0
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):  # one that has ended
            if os.getsid(int(path.name)) == session:
                lines = (path / "status").read_text().splitlines()
                total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))
    return total


def kill_group(group: int) -> None:
    """Kill the notebook and the processes that it left running."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    if sys.argv[1] == "watch":
        watch(Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
    else:
        run_cells(Path(sys.argv[2]))
