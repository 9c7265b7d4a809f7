"""Kernel folders with a notebook of the test's own, which needs no model."""

import json
from pathlib import Path

from nexttoken.commands.kernel_folder.files import DATA_SET, FlatFiles, write_manifest
from nexttoken.commands.kernel_folder.notebook import write_metadata
from support.finished_runs import write_finished_fold

OPEN = """
import csv, os
from pathlib import Path
INPUT, WORKING = Path(os.environ["NEXTTOKEN_INPUT"]), Path(os.environ["NEXTTOKEN_WORKING"])
TEST = INPUT / "lmsys-chatbot-arena" / "test.csv"
CLASSES = ["winner_model_a", "winner_model_b", "winner_tie"]
def write(path, rows):
    ids = [row["id"] for row in csv.DictReader(path.open(encoding="utf-8", newline=""))][:rows]
    lines = [",".join(["id", *CLASSES]), *(f"{one},0.25,0.25,0.5" for one in ids)]
    (WORKING / "submission.csv").write_text("\\n".join(lines) + "\\n")
"""
ANSWER = "write(TEST, None)"


def write_kernel(folder: Path, *cells: str, **settings: object) -> Path:
    """A kernel folder for the sample preferences: its notebook has these cells after one that defines `write`.

    `settings` are further ones of the manifest.
    """
    (folder / DATA_SET).mkdir(parents=True)
    flat = FlatFiles(folder / DATA_SET)
    flat.add(write_finished_fold(folder.with_name(f"run of {folder.name}")), "runs/run/fold0")
    sources = [{"cell_type": "code", "source": cell.splitlines(keepends=True)} for cell in (OPEN, *cells)]
    (folder / "notebook.ipynb").write_text(json.dumps({"cells": sources}), encoding="utf-8")
    write_metadata(folder, "me/rehearsed", "me/rehearsed-files", "NvidiaTeslaT4", "lmsys-chatbot-arena", [])
    known = {"run": "runs/run", "competition": "lmsys-chatbot-arena", "bases": {}, "suffix": ".csv", "arguments": []}
    write_manifest(folder, flat, known | settings)
    return folder
