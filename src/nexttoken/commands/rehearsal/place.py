"""The folder in which a kernel is rehearsed, filled as Kaggle mounts a notebook's inputs."""

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nexttoken.commands.archive import unpack
from nexttoken.commands.kernel_folder.files import DATA_SET
from nexttoken.commands.kernel_folder.packed_runs import given_base
from nexttoken.errors import UserError
from nexttoken.progress import seconds_of

WITHIN = re.compile(r"""(\bwithin\s*=\s*["']?)(\d[\dhms.]*[hms])""")  # in a cell of the notebook


def lay_out_runs(kernel: Path, manifest: Mapping[str, Any], folder: Path) -> Path:
    """The runs of a kernel folder as folders again, by links."""
    for name, one in manifest["files"].items():
        if place := one.get("place"):
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            (folder / place).symlink_to((kernel / DATA_SET / name).resolve())
    return folder


def mount_data_set(kernel: Path, inputs: Path) -> Path:
    """Copy the data set to the place at which Kaggle mounts it; archives are unpacked there, as Kaggle does.

    Raises UserError for a dangerous archive.
    """
    source = json.loads((kernel / DATA_SET / "dataset-metadata.json").read_text("utf-8"))["id"]
    folder = inputs / source.rpartition("/")[2]
    shutil.copytree(kernel / DATA_SET, folder, copy_function=os.link)
    for archive in folder.glob("*.zip"):
        unpack(archive, folder / archive.stem)
        archive.unlink()
    return folder


def link_bases(bases: Mapping[str, str], base: str | None, inputs: Path) -> None:
    """Link base models to where Kaggle mounts them. Raises UserError for one that is on Kaggle alone."""
    for name, source in bases.items():
        if not source:
            continue
        folder = Path(given_base(base, name) or "")
        if base is None or not folder.is_dir():
            raise UserError(
                f"the base model {name} is {source} on Kaggle; name its folder on this machine with base=..."
            )
        place = inputs.joinpath(*source.split("/")[1:])
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(folder.resolve())


def shorten_within(notebook: Path, target: Path, scale: float) -> str | None:
    """Write the notebook with its `within` divided by `scale`, as its time limit is; return it, None without one."""
    content, found = json.loads(notebook.read_text("utf-8")), None

    def shorter(match: re.Match[str]) -> str:
        nonlocal found
        found = f"{(seconds_of(match[2]) or 0) / scale:.1f}s"
        return match[1] + found

    for cell in content["cells"]:
        cell["source"] = WITHIN.sub(shorter, "".join(cell["source"]))
    target.write_text(json.dumps(content), "utf-8")
    return found
