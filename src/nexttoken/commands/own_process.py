"""A job of a sweep in a process of its own, which may use several devices and gives all memory back at its end."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple

from nexttoken.commands.typed import in_typed_order, key_of
from nexttoken.data.typed_texts import typed_override
from nexttoken.errors import visible
from nexttoken.models.processes import end_with

PARENT = "NEXTTOKEN_PARENT"  # the number of the process that waits for this one
NOT_PASSED = ("hydra.mode", "hydra/launcher", "hydra.launcher", "hydra/sweeper", "hydra.sweeper", "hydra.sweep")
PASSED = ("PYTHONPATH", "NEXTTOKEN_CACHE")
RUNNING: set[subprocess.Popen] = set()


class Ended(NamedTuple):
    """The end of a command: its output, its error on one line, "" for none, and its time."""

    output: str
    error: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Call:
    """The command of one job. It can be sent to another machine that has the same folders, and called there."""

    title: str
    command: tuple[str, ...]
    directory: str
    devices: int = 1  # GPUs that the job takes, where there are any
    environment: Mapping[str, str] = field(default_factory=dict)  # beside the machine's own

    @classmethod
    def of_job(cls, title: str, overrides: Sequence[str], name: str | None, devices: int) -> "Call":
        """The command of a job with these overrides, whose run has that name, in Hydra's present configuration."""
        given = [one for one in in_typed_order(overrides) if name is None or key_of(one) != "name"]
        named = [] if name is None else [typed_override("name", name)]
        command = (sys.executable, os.path.abspath(sys.argv[0]), *_hydra_options(), "hydra.mode=RUN", *given, *named)
        return cls(title, command, os.getcwd(), devices, passed_environment())

    def __call__(self, environment: Mapping[str, str] | None = None) -> "Ended":
        """Run the command to its end.

        Its progress is shown on stderr behind the title. The command ends with this process, also a killed one.
        """
        start = time.monotonic()
        given = {**os.environ, **self.environment, **(environment or {}), PARENT: str(os.getpid())}
        with tempfile.TemporaryFile() as stdout:
            options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": stdout, "stderr": subprocess.PIPE}
            options |= {"text": True, "errors": "replace", "cwd": self.directory, "env": given}
            with subprocess.Popen(self.command, **options) as process, _noted(process):
                assert process.stderr is not None
                last = self._show_but_last(process.stderr)
            stdout.seek(0)
            output = stdout.read().decode(errors="replace")
        return Ended(output, _describe(process.returncode, last), time.monotonic() - start)

    def checkpoint(self, *_: Any) -> Any:
        """Submitit calls this where SLURM takes the machine back: the same command goes on from its checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _show_but_last(self, lines: IO[str]) -> str:
        """Show all lines but the last, which is returned: it is the error, where there is one."""
        last = ""
        for line in lines:
            if last:
                print(visible(f"{self.title}: {last}"), file=sys.stderr, flush=True)
            last = line.rstrip() or last
        return last


def passed_environment() -> dict[str, str]:
    """The variables by which a job on another machine finds this package and its caches."""
    return {key: value for key, value in os.environ.items() if key in PASSED}


@contextmanager
def _noted(process: subprocess.Popen) -> Iterator[None]:
    """A context that counts the process among those to be ended early, and ends it where this one is interrupted."""
    RUNNING.add(process)
    try:
        yield
    except BaseException:
        process.terminate()
        raise
    finally:
        RUNNING.discard(process)


def end_calls() -> None:
    """End the commands that run in other threads of this process, so that these can end."""
    for process in tuple(RUNNING):
        process.terminate()


def end_with_sweep() -> None:
    """Have this process end with the sweep that started it as a job, if one did."""
    if parent := os.environ.pop(PARENT, None):
        end_with(int(parent))


def _hydra_options() -> list[str]:
    """Hydra's own arguments that a job shares with its sweep: other folders of configurations, and `hydra.` keys."""
    from hydra.core.hydra_config import HydraConfig

    config = HydraConfig.get()
    typed = [source.path for source in config.runtime.config_sources if source.provider == "command-line"]
    keys = [one for one in config.overrides.hydra if not one.lstrip("+~").startswith(NOT_PASSED)]
    return [*(f"--config-dir={path}" for path in typed), *keys]


def _describe(status: int, last: str) -> str:
    """The error of a command that ended with this status, on one line; "" for none."""
    if status == 0:
        return ""
    if status < 0:
        return f"its process was killed ({signal.Signals(-status).name}), often for want of memory"
    return last or f"its process ended with status {status}"
