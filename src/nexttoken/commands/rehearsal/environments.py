"""Python environments with the versions of an older or newer image, in which a kernel is rehearsed.

Each is made once, from the package registry, in the user's cache: gigabytes and minutes where torch comes with CUDA.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

from nexttoken.data.files import cache_dir
from nexttoken.data.whole_files import remove
from nexttoken.errors import UserError, nearest, one_line

IMAGES = Path(__file__).parent / "images"  # a file of name==version lines each
HERE = "here"
DONE = "complete"  # a file that an environment has once everything is installed


def image_names() -> list[str]:
    return sorted(path.stem for path in IMAGES.glob("*.txt"))


def python_of(versions: str) -> Path:
    """The Python with the packages of an image: `here` is this one, `oldest` and `newest` are listed beside this file.

    Raises: UserError for another name, and where the registry does not give a package.
    """
    if versions == HERE:
        return Path(sys.executable)
    listed = IMAGES / f"{versions}.txt"
    if not listed.is_file():
        raise UserError(f"versions={versions} is not known; {nearest(versions, [HERE, *image_names()])}")
    return make_environment(listed)


def make_environment(listed: Path) -> Path:
    """The Python of the environment with the packages of a list, which is made where it is not there yet."""
    from filelock import FileLock

    name = hashlib.sha256(listed.read_bytes() + sys.version.encode()).hexdigest()[:16]
    folder = cache_dir() / "kernel-envs" / name
    python = folder / "bin" / "python"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if (folder / DONE).is_file():
            return python
        remove(folder)
        print(f"installing the packages of {listed.name} into {folder}", flush=True)
        for command in (
            [sys.executable, "-m", "venv", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", "--requirement", str(listed)],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                lines = [line for line in done.stderr.splitlines() if "ERROR" in line] or done.stderr.splitlines()
                reason = one_line(lines[-1] if lines else f"exit status {done.returncode}")
                raise UserError(
                    f"{listed} could not be installed ({reason}); check the registry, or take versions=here"
                )
        (folder / DONE).touch()
    return python
