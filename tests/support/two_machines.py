"""Two machines in this one: network namespaces with an address and a host name each, joined by a cable of their own.

A process of one of them reaches the other through the cable only. They share the files, as machines of a cluster do.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

HOSTS = Path("/etc/netns")  # `ip netns exec` shows a namespace's files here as those of /etc
CARD = "cable"  # the name of both network cards


class NoNamespaces(Exception):
    """This machine makes no network namespaces for its tests: not root, another system, or no `ip`."""


class Started(subprocess.Popen):
    """A running command whose output goes to files."""

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str], files: Path) -> None:
        self.files = files
        with files.with_suffix(".out").open("w") as out, files.with_suffix(".err").open("w") as err:
            super().__init__(command, cwd=folder, env=environment, stdout=out, stderr=err)

    @property
    def printed(self) -> str:
        return self.files.with_suffix(".out").read_text()

    @property
    def complained(self) -> str:
        return self.files.with_suffix(".err").read_text()


@dataclass(frozen=True)
class TwoMachines:
    """The machines by name; each has the address 10.77.0.<number>, and a folder for the output of its commands."""

    names: tuple[str, str]
    folder: Path

    def address(self, place: int) -> str:
        return f"10.77.0.{place + 1}"

    def start(self, place: int, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Started:
        """Start a command on a machine."""
        name = self.names[place]
        inside = ["ip", "netns", "exec", name, "unshare", "--uts", "sh", "-c", f'hostname {name} && exec "$@"', "sh"]
        own = {"GLOO_SOCKET_IFNAME": CARD, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        files = self.folder / f"command{len(list(self.folder.glob('*.out')))}"
        return Started([*inside, *command], folder, {**os.environ, **own, **environment}, files)

    def kill(self, place: int) -> None:
        """End every process of a machine at once, as when its power fails."""
        found = subprocess.run(["ip", "netns", "pids", self.names[place]], capture_output=True, text=True).stdout
        for pid in found.split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


@contextmanager
def two_machines(folder: Path) -> Iterator[TwoMachines]:
    """Raises NoNamespaces where they cannot be made. At the end their processes are killed, and nothing is left."""
    if sys.platform != "linux" or os.geteuid() or not all(map(shutil.which, ("ip", "unshare"))):
        raise NoNamespaces("network namespaces need Linux, root, `ip` and `unshare`")
    machines = TwoMachines((f"nexttoken-a{os.getpid()}", f"nexttoken-b{os.getpid()}"), folder)
    addresses = "".join(f"{machines.address(place)} {name}\n" for place, name in enumerate(machines.names))
    try:
        for name in machines.names:
            _ip("netns", "add", name)
            (HOSTS / name).mkdir(parents=True)
            (HOSTS / name / "hosts").write_text(f"127.0.0.1 localhost\n{addresses}")  # their /etc/hosts
        first, second = machines.names
        _ip("-n", first, "link", "add", CARD, "type", "veth", "peer", CARD, "netns", second)
        for place, name in enumerate(machines.names):
            _ip("-n", name, "address", "add", f"{machines.address(place)}/24", "dev", CARD)
            _ip("-n", name, "link", "set", CARD, "up")
            _ip("-n", name, "link", "set", "lo", "up")
        yield machines
    finally:
        for place, name in enumerate(machines.names):
            machines.kill(place)
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)
            shutil.rmtree(HOSTS / name, ignore_errors=True)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise NoNamespaces(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
