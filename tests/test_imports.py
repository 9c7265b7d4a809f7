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
    "build.py",
    "parts.py",
    "pipeline.py",
    "entry.py",
    "commands/entry.py",
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


def imported(path: Path, everywhere: bool = True) -> set[str]:
    """Dotted names that a file imports; only those at module level unless `everywhere`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if everywhere else ast.iter_child_nodes(tree)
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
    """None for a module that has not moved into its room yet."""
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
    own = line_of(room(f"nexttoken.{path.relative_to(SOURCE).parts[0]}"))
    if own is None:
        return
    lines = {name: line_of(room(name)) for name in imported(path, everywhere=False) if name.startswith("nexttoken.")}
    assert {name for name, line in lines.items() if line is not None and line > own} <= NOT_YET


NOT_YET: set[str] = set()


@pytest.mark.parametrize(
    "name",
    sorted(commands()),
)
def test_commands_start_without_torch(name):
    code = f"import sys, nexttoken.commands.{name}; print(*({HEAVY!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
