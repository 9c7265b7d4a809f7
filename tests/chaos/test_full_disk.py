"""A disk that is really full: a small file system of its own under a command's results.

The command says where room is lacking and leaves nothing half-written. With more room it ends as on an empty disk.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.scenes import SCENES, difference, litter, results
from support.sound_files import unsound

pytestmark = pytest.mark.slow

FOLDERS = {"train": "output", "predict": "submissions"}  # where each command writes
SHARES = (0.05, 0.3, 0.9)  # of the room that the command needs
ROOMY = 64 << 20
PAGE = 4096


@contextmanager
def disk(folder: Path, size: int) -> Iterator[None]:
    """A file system of `size` bytes in memory at `folder`, gone at the end; a skipped test where none can be made."""
    folder.mkdir(exist_ok=True)
    if sys.platform != "linux" or mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder):
        pytest.skip("no file system can be mounted here: that needs Linux and root")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def mount(*arguments: object) -> int:
    return subprocess.run(["mount", *map(str, arguments)], capture_output=True).returncode


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", FOLDERS)
def test_a_full_disk_is_named_and_with_room_the_same_command_ends_well(checkouts, name) -> None:
    argv, whole = SCENES[name].argv, checkouts.new(name)
    with disk(whole / FOLDERS[name], ROOMY):
        status, words = checkouts.call(argv, whole)
        assert status == 0, words
        expected, needed = results(whole), shutil.disk_usage(whole / FOLDERS[name]).used
    for share in SHARES:
        checkout = checkouts.new(name)
        folder = checkout / FOLDERS[name]
        with disk(folder, max(PAGE, int(share * needed) // PAGE * PAGE)):
            status, words = checkouts.call(argv, checkout)
            print(f"{name}, {share:.0%} of {needed:,} bytes -> {status} {words.splitlines()[-1:]}")
            assert status == 2, (share, words)
            assert "Traceback" not in words, words
            last = words.splitlines()[-1]
            assert f"{FOLDERS[name]}/" in last, last
            assert "make room" in last.lower(), last
            assert not unsound(checkout), (share, unsound(checkout))
            assert mount("-o", f"remount,size={ROOMY}", folder) == 0
            status, words = checkouts.call(argv, checkout)
            assert status == 0, (share, words)
            assert not difference(results(checkout), expected), (share, difference(results(checkout), expected))
            assert not litter(checkout), (share, litter(checkout))
