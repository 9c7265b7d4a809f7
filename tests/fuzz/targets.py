"""All targets by name. Their sound files are written into a folder of this process on the first use."""

import atexit
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from fuzz import folders, pages, settings_files, submissions, templates
from fuzz.target import Target, file_target
from support.read_files import Reader, sound_readers

TABLES = (".csv", ".tsv")


@cache
def work_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def readers() -> dict[str, Reader]:
    return sound_readers(work_folder() / "files")


def files(*endings: str) -> Target:
    """The readers of data files with these endings."""
    return file_target(reader for reader in readers().values() if reader[0].suffix in endings)


TARGETS: dict[str, Callable[[], Target]] = {
    "csv": lambda: files(".csv", ".tsv"),
    "parquet": lambda: files(".parquet"),
    "json": lambda: files(".json"),
    "json_lines": lambda: files(".jsonl", ".txt"),
    "overrides": settings_files.overrides,
    "arguments": settings_files.arguments,
    "settings_file": lambda: settings_files.yaml_files(work_folder() / "conf"),
    "run_settings": lambda: settings_files.run_settings(work_folder() / "settings"),
    "prompt": templates.prompts,
    "chat_template": templates.chat_templates,
    "model_folder": lambda: folders.models(work_folder() / "model"),
    "adapter_folder": lambda: folders.adapters(work_folder() / "adapter"),
    "run_folder": lambda: folders.runs(work_folder() / "runs"),
    "page": lambda: pages.pages(work_folder() / "page"),
    "submission": lambda: submissions.written(work_folder() / "submissions"),
}


@cache
def target(name: str) -> Target:
    return TARGETS[name]()
