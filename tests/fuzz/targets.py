"""All targets by name. Their sound files are written into a folder of this process on the first use."""

import atexit
import shutil
import tempfile
from functools import cache
from importlib import import_module
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.made import MADE
from fuzz.target import Target

MODULES = {  # the module of each target, which has a function of its name; models need torch
    "csv": "data_files",
    "parquet": "data_files",
    "json": "data_files",
    "json_lines": "data_files",
    "tables": "data_files",
    "archives": "data_files",
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


MADE_ENDING = "_made"  # of a target whose inputs are made by the grammar of their kind
NAMES = [*MODULES, *(f"{name}{MADE_ENDING}" for name in MADE)]


@cache
def target(name: str) -> Target:
    """The target of this name, with a new folder to write in."""
    if name.endswith(MADE_ENDING):
        return made(name.removesuffix(MADE_ENDING))
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return getattr(import_module(f"fuzz.{MODULES[name]}"), name)(folder)


def made(name: str) -> Target:
    """A target whose bytes are choices of hypothesis, by which it makes inputs of sound form for another target."""
    chosen = target(name)

    @settings(database=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def obeys(data: st.DataObject) -> None:
        sample = data.draw(st.sampled_from(chosen.samples))
        chosen.one_input(sample[: chosen.num_kept] + data.draw(MADE[name](sample[chosen.num_kept :])))

    def one_input(data: bytes) -> bool:
        return obeys.hypothesis.fuzz_one_input(data) is not None  # None where the bytes are too few choices

    return Target(one_input, (bytes(range(256)) * 8,))
