"""The notebook of a kernel and the metadata by which Kaggle runs it: device, data sets, models, no network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nexttoken.data.files import write_json

OPEN = """import os, shutil, sys
from pathlib import Path

INPUT = Path(os.environ.get("NEXTTOKEN_INPUT", "/kaggle/input"))
WORKING = Path(os.environ.get("NEXTTOKEN_WORKING", "/kaggle/working"))
OWNER, NAME = "{owner}", "{name}"
DATA_SET = next(path for path in (INPUT / NAME, INPUT / "datasets" / OWNER / NAME) if path.is_dir())

CODE = DATA_SET / "code"  # Kaggle unpacks archives
if not CODE.is_dir():
    CODE = WORKING / "nexttoken" / "code"
    shutil.unpack_archive(DATA_SET / "code.zip", CODE)
sys.dont_write_bytecode = True
sys.path.insert(0, str(CODE / "src"))
from nexttoken.commands.kernel_folder.in_kernel import Kernel

kernel = Kernel(DATA_SET, INPUT, WORKING, CODE)
kernel.lay_out()"""


def write_notebook(kernel: Path, data_set: str, title: str, within: str | None) -> None:
    """Write notebook.ipynb, which predicts with the data set `owner/name`."""
    owner, name = data_set.split("/")
    limit = f'within="{within}"' if within else ""
    cells = [
        _cell(
            "markdown", f"# {title}\n\nWritten by `python -m nexttoken kernel`: predicts with a finished run, offline."
        ),
        _cell("code", OPEN.replace("{owner}", owner).replace("{name}", name)),
        _cell("code", "kernel.install()  # wheels that the image lacks, without network"),
        _cell("code", "kernel.check()  # versions and device"),
        _cell("code", f"kernel.predict({limit})  # a valid file lies there from the first second"),
        _cell("code", "kernel.validate()"),
    ]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    python = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": python, "language_info": {"name": "python"}}
    write_json({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}, kernel / "notebook.ipynb")


def _cell(kind: str, source: str) -> dict[str, Any]:
    cell: dict[str, Any] = {"cell_type": kind, "metadata": {}, "source": source.splitlines(keepends=True)}
    return cell | ({"execution_count": None, "outputs": []} if kind == "code" else {})


def write_metadata(
    kernel: Path, identity: str, data_set: str, machine_shape: str, competition: str, models: Sequence[str]
) -> None:
    """Write kernel-metadata.json, and dataset-metadata.json in the data set's folder."""
    is_data_set = "/" in competition
    metadata: Mapping[str, Any] = {
        "id": identity,
        "title": title_of(identity),
        "code_file": "notebook.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": bool(machine_shape),
        "enable_tpu": False,
        "enable_internet": False,
        "machine_shape": machine_shape,
        "dataset_sources": [data_set, *[competition] * is_data_set],
        "competition_sources": [competition] * (not is_data_set),
        "kernel_sources": [],
        "model_sources": sorted(models),
    }
    write_json(metadata, kernel / "kernel-metadata.json")
    own = {"id": data_set, "title": title_of(data_set), "licenses": [{"name": "other"}]}
    write_json(own, kernel / "dataset" / "dataset-metadata.json")


def title_of(identity: str) -> str:
    """The title that Kaggle turns into this slug again."""
    return identity.partition("/")[2].replace("-", " ")
