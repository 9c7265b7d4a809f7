"""The steps of a kernel's notebook: lay out the files, install what is missing, check, predict, validate.

It runs before anything is installed, so it imports nothing outside the standard library.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

FOLDER = "nexttoken"  # in the working folder: code, links to the run's files, caches; removed at the end
NOT_ALL = 3  # exit status of predict.py where some rows have a cheaper answer
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "WANDB_MODE": "offline",
    "PIP_NO_INDEX": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
}
CACHES = ("HF_HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TMPDIR")


def mounted(root: Path, source: str) -> Path:
    """The folder in which Kaggle mounts a competition, a data set (owner/name) or a model (five words).

    Raises FileNotFoundError where it is not there.
    """
    words = source.split("/")
    kind = {1: "competitions", 2: "datasets"}.get(len(words), "models")
    own = words if len(words) == 1 else words[1:]
    places = [root.joinpath(*own), root.joinpath(kind, *words), root.joinpath(kind, *own)]
    for place in places:
        if place.is_dir():
            return place
    raise FileNotFoundError(f"{source} is not attached to this kernel: looked for {', '.join(map(str, places))}")


@dataclass(frozen=True)
class Kernel:
    """A kernel at work: its data set, the root of all inputs, the working folder, the folder of the code."""

    data_set: Path
    inputs: Path
    working: Path
    code: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        return json.loads((self.data_set / "manifest.json").read_text(encoding="utf-8"))

    @property
    def folder(self) -> Path:
        return self.working / FOLDER

    @property
    def input_dir(self) -> Path:
        """The competition's files, with the run's own files among them, such as recorded passages."""
        return self.folder / "input"

    @property
    def environment(self) -> dict[str, str]:
        """The variables of every program that is started: no network, and all caches in the working folder."""
        caches = {name: str(self.folder / "cache" / name.lower()) for name in CACHES}
        for path in caches.values():
            Path(path).mkdir(parents=True, exist_ok=True)
        paths = [str(self.folder / "packages"), str(self.code / "src"), os.environ.get("PYTHONPATH", "")]
        own = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "NEXTTOKEN_CACHE": str(self.folder / "cache")}
        return {**os.environ, **OFFLINE, **caches, **own}

    def lay_out(self) -> None:
        """Link the run, its base models and the competition's files into the working folder; nothing is copied."""
        for name, one in self.manifest["files"].items():
            if place := one.get("place"):
                link(self.data_set / name, self.folder / place)
        for name, source in self.manifest["bases"].items():
            if source:
                link(mounted(self.inputs, source), self.folder / "bases" / name)
        for path in sorted(mounted(self.inputs, self.manifest["competition"]).iterdir()):
            if not (self.input_dir / path.name).exists():
                link(path, self.input_dir / path.name)
        print(f"{len(self.manifest['files'])} files of {self.manifest['run']} are laid out in {self.folder}")

    def install(self) -> None:
        """Install the wheels of the data set into the working folder, without network; the image stays as it is."""
        wheels = sorted(map(str, self.data_set.glob("*.whl")))
        if not wheels:
            print("nothing to install: the image holds all that the run needs")
            return
        options = ["--no-index", "--no-deps", "--no-compile", "--quiet", "--disable-pip-version-check"]
        target = ["--target", str(self.folder / "packages")]
        self.call([sys.executable, "-m", "pip", "install", *options, *target, *wheels])
        print(f"installed {', '.join(Path(wheel).name.split('-')[0] for wheel in wheels)}")

    def check(self) -> None:
        """Print versions and devices; raise RuntimeError where torch cannot use the device, or a package is absent."""
        wanted = str(self.data_set / "requirements.txt")
        self.call([sys.executable, "-m", "nexttoken.models.image_check", wanted])

    def predict(self, within: str | None = None) -> None:
        """Predict the test rows into the submission; where time runs short, the last rows have a cheaper answer."""
        places = [
            f"submissions_dir={self.working}",
            f"input_dir={self.input_dir}",
            f"run={self.folder / self.manifest['run']}",
        ]
        given = [argument.replace("{folder}", str(self.folder)) for argument in self.manifest["arguments"]]
        limits = [f"devices={self.num_devices}", *([f"within={within}"] if within else [])]
        arguments = ["name=submission", *places, *limits, *given]
        status = self.call([sys.executable, str(self.code / "predict.py"), *arguments], accepted=(0, NOT_ALL))
        if status == NOT_ALL:
            print(f"time ran short: some rows have a cheaper answer, as printed above (exit status {NOT_ALL})")

    @property
    def num_devices(self) -> int:
        """$NEXTTOKEN_DEVICES, else the number of GPUs; one process each. Open answers are written by one process."""
        if not self.manifest["has_labels"]:
            return 1
        if given := os.environ.get("NEXTTOKEN_DEVICES"):
            return int(given)
        listed = (
            subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False) if has_gpu() else None
        )
        return max(1, listed.stdout.count("GPU ")) if listed else 1

    def validate(self) -> None:
        """Check the submission against the test file, and leave nothing but it and its ledger in the working folder."""
        path = self.working / f"submission{self.manifest['suffix']}"
        if not path.is_file():
            raise RuntimeError(f"Submission CSV Not Found: {path} was not written")
        if self.manifest["has_check"]:
            command = [sys.executable, "-m", "nexttoken", "submission", str(path), f"input_dir={self.input_dir}"]
            self.call(command)
        for extra in (self.folder, self.working / "written"):
            shutil.rmtree(extra, ignore_errors=True)
        print(f"{path}: {path.stat().st_size:,} bytes")

    def call(self, command: Sequence[str], accepted: Sequence[int] = (0,)) -> int:
        """Run a program and print its lines as they come. Raises RuntimeError with its last line where it fails."""
        last = ""
        self.folder.mkdir(parents=True, exist_ok=True)
        options: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
        with subprocess.Popen(command, cwd=self.folder, env=self.environment, **options) as running:
            for line in running.stdout or ():
                print(line, end="", flush=True)
                last = line.strip() or last
        if running.returncode not in accepted:
            raise RuntimeError(f"exit status {running.returncode}: {last}")
        return running.returncode


def has_gpu() -> bool:
    return shutil.which("nvidia-smi") is not None


def link(target: Path, place: Path) -> None:
    """Make a symbolic link at `place`, in the place of an earlier one."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    place.symlink_to(target)
