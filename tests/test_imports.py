"""Imports point one way, and what is not about models stays free of torch: read from the code, nothing is run."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from nexttoken.__main__ import commands

SOURCE = Path(__file__).resolve().parents[1] / "src" / "nexttoken"
HEAVY = {"torch", "transformers", "lightning", "peft", "bitsandbytes"}
HEAVY_ROOMS = {"models", "engine", "training"}
HYDRA = {"hydra", "omegaconf"}
HYDRA_MODULES = {
    "commands/broken_files.py",
    "commands/grid.py",
    "commands/hydra_guard.py",
    "build.py",
    "pipeline.py",
    "commands/entry.py",
    "commands/own_process.py",
    "commands/typed.py",
}
LINES = [  # a module may import from its own line and from the lines above it
    {"errors", "settings", "progress", "types"},
    {"data", "metrics", "build"},
    {"transforms", "prompts"},
    {"tasks", "models"},
    {"inference", "engine"},
    {"training", "runs"},
    {"report"},
    {"pipeline"},
    {"commands"},
]
MODULES = sorted(SOURCE.rglob("*.py"))


def imported(path: Path, for_types: bool = True) -> set[str]:
    """Dotted names that a file imports; without `for_types`, not those that only type checkers read."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    blocks = [
        one for one in ast.walk(tree) if isinstance(one, ast.If) and getattr(one.test, "id", "") == "TYPE_CHECKING"
    ]
    hidden = set() if for_types else {id(node) for block in blocks for node in ast.walk(block)}
    nodes = (node for node in ast.walk(tree) if id(node) not in hidden)
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room(name: str) -> str:
    return name.split(".")[1].removesuffix(".py")


def line_of(name: str) -> int | None:
    """None for `__init__` and `__main__`."""
    return next((number for number, line in enumerate(LINES) if name in line), None)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_few_rooms_import_torch_and_few_modules_hydra(path):
    packages = {name.split(".")[0] for name in imported(path)}
    relative = path.relative_to(SOURCE)
    if relative.parts[0] not in HEAVY_ROOMS:
        assert not packages & HEAVY
    if relative.as_posix() not in HYDRA_MODULES:
        assert not packages & HYDRA


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_one_way(path):
    """Imports inside functions count, too; `__init__` and `__main__` may import anything."""
    own = line_of(room(f"nexttoken.{path.relative_to(SOURCE).parts[0]}"))
    if own is None:
        return
    lines = {name: line_of(room(name)) for name in imported(path, for_types=False) if name.startswith("nexttoken.")}
    assert not {name for name, line in lines.items() if line is not None and line > own}


def test_commands_start_without_torch():
    """One process imports them all, one after the other: starting it takes longer than the imports."""
    code = f"""
import sys
from importlib import import_module
for name in {sorted(commands())}:
    import_module(f"nexttoken.commands.{{name}}")
    print(*(f"{{name}} imports {{found}}" for found in {HEAVY!r} & sys.modules.keys()))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
