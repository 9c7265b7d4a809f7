"""A process that has imported the project once and forks for each command, so that a killed command costs no import.

Its standard input takes a JSON object a line: `argv`, `cwd`, `out` (a file for the output), `environment`, and `fault`
(arguments of `plan_fault` in faults.c). It answers with the number of the child, and at its end with its exit status.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# The kinds of faults.c.
COUNT, KILL_BEFORE, KILL_AFTER, TEAR, FAIL_ONCE, FAIL_FROM, SLOW_FROM, CLOCK_FROM = range(8)
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass
class ForkServer:
    """The client's half; a context manager. Its commands are the leaders of their own process groups."""

    preload: Path | None = None  # a library that is loaded before all others
    process: Any = field(default=None, init=False)

    def __enter__(self) -> "ForkServer":
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONHASHSEED": "0"}
        if self.preload:
            environment["LD_PRELOAD"] = str(self.preload)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen([sys.executable, __file__], env=environment, text=True, **pipes)
        assert self._answer() == "ready"
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.wait()

    def start(self, argv: Sequence[str], cwd: Path, out: Path, fault: Sequence[Any] = (), **environment: str) -> int:
        """Start a command and return its process number."""
        request = {"argv": argv, "cwd": str(cwd), "out": str(out), "fault": fault, "environment": environment}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def wait(self) -> int:
        """The exit status of the command: negative for the signal that ended it."""
        return self._answer()

    def _answer(self) -> Any:
        return json.loads(self.process.stdout.readline())


def serve() -> None:
    import_all()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if not (pid := os.fork()):
            answers.close()
            os._exit(call(request))
        os.setpgid(pid, pid)  # here, too, so that it can be killed at once
        print(pid, file=answers, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=answers, flush=True)


def import_all() -> None:
    """Import whatever a command imports."""
    import gc
    import pkgutil
    from importlib import import_module

    sys.path[0] = str(REPOSITORY)  # instead of this folder, whose names are those of other packages
    import nexttoken

    for module in pkgutil.walk_packages(nexttoken.__path__, "nexttoken."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    for name in ("lightning.pytorch", "peft", "transformers.models.llama.modeling_llama", "matplotlib.pyplot", "bm25s"):
        import_module(name)
    gc.freeze()


def call(request: Mapping[str, Any]) -> int:
    """Run a command as `python <argv>` would, and return its exit status."""
    import atexit
    import ctypes
    import runpy
    import threading

    os.setpgid(0, 0)
    out = os.open(request["out"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(out, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.chdir(request["cwd"])
    os.environ.update(request["environment"])
    script, *sys.argv[1:] = request["argv"]
    sys.argv[0] = script
    from nexttoken.prompts import token_cache

    token_cache.MIN_CHARACTERS = 0  # few rows are cached, too
    if request["fault"]:
        folder, log, *numbers = request["fault"]
        ctypes.CDLL(None).plan_fault(folder.encode(), log.encode(), *map(int, numbers))
    status: Any = 0
    try:
        if script == "-m":
            del sys.argv[0]
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(script, run_name="__main__")
    except SystemExit as ended:
        status = ended.code
    except BaseException as error:
        try:
            sys.excepthook(type(error), error, error.__traceback__)
            status = 1
        except SystemExit as ended:  # as Python itself takes it
            status = ended.code
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return status if isinstance(status, int) else 0 if status is None else 1


if __name__ == "__main__":
    serve()
