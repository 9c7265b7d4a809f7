"""All targets by name. Their sound files are written into a folder of this process on the first use."""

import atexit
import shutil
import tempfile
from functools import cache
from importlib import import_module
from pathlib import Path

from fuzz.target import Target

MODULES = {  # the module of each target, which has a function of its name; models need torch
    "csv": "data_files",
    "parquet": "data_files",
    "json": "data_files",
    "json_lines": "data_files",
    "overrides": "settings_files",
    "arguments": "settings_files",
    "yaml_files": "settings_files",
    "run_settings": "settings_files",
    "prompts": "templates",
    "chat_templates": "templates",
    "models": "folders",
    "adapters": "folders",
    "runs": "folders",
    "pages": "pages",
    "submissions": "submissions",
}


@cache
def target(name: str) -> Target:
    """The target of this name, with a new folder to write in."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return getattr(import_module(f"fuzz.{MODULES[name]}"), name)(folder)
