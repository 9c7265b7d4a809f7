"""A notebook run as in a Kaggle machine: no network, read-only input, and limits of time, memory and disk.

Linux's namespaces do it, by the program `unshare` of util-linux, for root and where users may make them.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nexttoken import types
from nexttoken.commands.rehearsal import runner as notebook_runner

OWN_PROCESSES = ("-pf", "--mount-proc", "--kill-child")  # whatever the notebook started ends with it
NAMESPACES = (("-Urnm", *OWN_PROCESSES), ("-Urnm",), ("-nm", *OWN_PROCESSES), ("-nm",))  # for users, and for root
NETWORK, INPUT, DISK, CODE = "the network", "the read-only input", "the disk limit", "the package of this checkout"
KEPT = ("PATH", "LANG", "LC_ALL", "TZ", "OMP_NUM_THREADS", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "MKL_NUM_THREADS")
GRACE_SECONDS = 60.0  # for what surrounds the notebook
# Each step that fails names in a file what it could not isolate; the notebook runs in any case.
SCRIPT = f"""
place=$1; disk=$2; packages=$3; shift 3
step() {{ name=$1; shift; "$@" >/dev/null 2>&1 || echo "$name" >> "$place/out/not-isolated.txt"; }}
freeze() {{ mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"; }}
ip link set lo up >/dev/null 2>&1
step '{INPUT}' freeze "$place/input"
step '{DISK}' mount -t tmpfs -o "size=$disk" tmpfs "$place/working"
for package in $packages; do step '{CODE}' mount -t tmpfs -o size=1m,ro tmpfs "$package"; done
exec "$@"
"""


@dataclass(frozen=True)
class Limits:
    """A machine's seconds for a notebook, and its bytes of memory and of disk in the working folder.

    The seconds are the machine's own divided by `scale`.
    """

    seconds: float
    memory: int
    disk: int
    scale: float = 1.0


@dataclass(frozen=True)
class Outcome:
    """The end of a notebook: its exit status (None when the time was over), its log, and what it used, in bytes."""

    status: int | None
    seconds: float
    peak_memory: int
    written: int
    log: str
    not_isolated: tuple[str, ...]


def run_notebook(place: Path, python: Path, limits: Limits, variables: Mapping[str, str]) -> Outcome:
    """Run <place>/notebook.ipynb on <place>/input in <place>/working, both of which exist.

    What it wrote is lost, but for <place>/out/submission.*. `variables` are further ones of its environment.
    """
    for name in ("out", "home", "tmp"):
        (place / name).mkdir()
    runner = shutil.copy2(notebook_runner.__file__, place / "runner.py")  # its own folder is hidden from the notebook
    watch = [str(python), str(runner), "watch", str(place), str(limits.seconds), str(limits.memory)]
    namespaces = usable_namespaces()
    environment = {name: os.environ[name] for name in KEPT if name in os.environ} | dict(variables)
    environment |= {"NEXTTOKEN_INPUT": str(place / "input"), "NEXTTOKEN_WORKING": str(place / "working")}
    environment |= {
        "HOME": str(place / "home"),
        "TMPDIR": str(place / "tmp"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    inside = [
        "unshare",
        *namespaces,
        "sh",
        "-c",
        SCRIPT,
        "sh",
        str(place),
        str(limits.disk),
        _packages(python, environment),
    ]
    command = [*inside, *watch] if namespaces else watch
    subprocess.run(command, env=environment, check=True, timeout=limits.seconds + GRACE_SECONDS)
    measured = json.loads((place / "out" / "outcome.json").read_text("utf-8"))
    log = (place / "out" / "log.txt").read_text("utf-8", errors="replace")
    return Outcome(**measured, log=log, not_isolated=tuple(_not_isolated(place, bool(namespaces))))


@cache
def usable_namespaces() -> tuple[str, ...]:
    """The options of `unshare` that this user may use; () where there are none."""
    for options in NAMESPACES:
        try:
            if subprocess.run(["unshare", *options, "true"], capture_output=True, timeout=20).returncode == 0:
                return options
        except (OSError, subprocess.TimeoutExpired):
            return ()
    return ()


def _packages(python: Path, environment: Mapping[str, str]) -> str:
    """The folders of this package: the one that runs, and the one that is installed for `python`."""
    code = "import importlib.util as u; found = u.find_spec('nexttoken'); print(found.origin if found else '')"
    done = subprocess.run([str(python), "-c", code], env=environment, capture_output=True, text=True, check=True)
    found = {types.__file__, done.stdout.strip()} - {"", "None"}
    return " ".join(sorted(str(Path(file).parent) for file in found))


def _not_isolated(place: Path, has_namespaces: bool) -> Iterator[str]:
    if not has_namespaces:
        yield from (NETWORK, INPUT, DISK, CODE)
    elif (noted := place / "out" / "not-isolated.txt").is_file():
        yield from noted.read_text("utf-8").splitlines()
