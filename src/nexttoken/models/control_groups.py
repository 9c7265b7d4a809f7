"""The memory that a container or a batch system leaves to this process: Linux's control groups, of both versions."""

import re
from contextlib import suppress
from pathlib import Path

MOUNT, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
UNLIMITED = 2**60  # version 1 writes such a number where there is no limit
# By version: the files of the limit and of the use, and the key of the file pages that the system can take back.
FILES = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")}
FILES[2] = ("memory.max", "memory.current", "inactive_file")


def control_group_room(mount: Path = MOUNT, own: Path = OWN) -> int | None:
    """Bytes left under the limit of this process's control group; None where there is none.

    Inside a container its own group lies at the mount point. Pages of files that were read once count as free.
    """
    rooms = [_room(folder, version) for folder, version in _groups(mount, own)]
    return min((room for room in rooms if room is not None), default=None)


def _groups(mount: Path, own: Path) -> list[tuple[Path, int]]:
    """Folders of this process's memory groups, with the version of their files."""
    text = own.read_text() if own.exists() else ""
    found = []
    for controllers, path in re.findall(r"^\d+:([^:]*):/(.*)$", text, re.MULTILINE):
        if "memory" in controllers.split(","):
            found += [(mount / "memory" / path, 1), (mount / "memory", 1)]
        elif not controllers:
            found += [(mount / path, 2), (mount, 2)]
    return found


def _room(folder: Path, version: int) -> int | None:
    limit_file, used_file, freeable = FILES[version]
    with suppress(OSError, ValueError):  # no such file, or `max`
        limit = int((folder / limit_file).read_text())
        used = int((folder / used_file).read_text())
        pages = re.search(rf"^{freeable} (\d+)$", (folder / "memory.stat").read_text(), re.MULTILINE)
        return None if limit >= UNLIMITED else max(limit - used + (int(pages[1]) if pages else 0), 0)
    return None
