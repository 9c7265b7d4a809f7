"""Imports point one way, and what is not about models stays free of torch: read from the code, nothing is run."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "nexttoken"
HEAVY = {"torch", "transformers", "lightning", "peft", "bitsandbytes"}
HYDRA = {"hydra", "omegaconf"}
KNOW_HYDRA = {"entry.py", "compose.py", "parts.py", "pipeline.py"}
LAYERS = [  # a module may import from its own row and from the rows above it
    {"errors", "sentences", "nearest", "types", "files", "progress", "console", "allocator", "arguments", "ranks"},
    {
        "table",
        "metrics",
        "cutting",
        "prompts",
        "matching",
        "text_baseline",
        "text_metrics",
        "mark_metrics",
        "jsonlines",
        "splits",
        "submission",
        "archive",
        "ledger",
    },
    {"baselines", "mark_baseline", "option_features", "option_baseline"},
    {"retrieval", "quizzes", "instructions", "calibration"},
    {"transforms", "curation", "gating"},
    {"settings", "combinations", "checks"},
    {"sample", "sample_quiz", "sample_instruct", "sample_dialogue", "sample_marks", "sample_noise"},
    {"tasks", "models", "runs", "inference", "scores"},
    {"data", "report", "answers", "parts", "kaggle", "convert"},
    {"loaded"},
    {"pipeline"},
    {"entry"},
    {"compose"},
    {"labels", "plan", "quantize", "merge", "gate", "curate", "judge"},
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


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_only_models_import_torch_and_few_know_hydra(path):
    packages = {name.split(".")[0] for name in imported(path)}
    if "models" not in path.parts:
        assert not packages & HEAVY
    if path.name not in KNOW_HYDRA:
        assert not packages & HYDRA


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_one_way(path):
    own = room(f"nexttoken.{path.relative_to(SOURCE).parts[0]}")
    if own == "__init__":
        return
    allowed = set().union(*LAYERS[: next(i for i, layer in enumerate(LAYERS) if own in layer) + 1])
    used = {room(name) for name in imported(path, everywhere=False) if name.startswith("nexttoken.")}
    assert used <= allowed


@pytest.mark.parametrize(
    "command",
    [
        "nexttoken.data",
        "nexttoken.report",
        "nexttoken.kaggle",
        "nexttoken.labels",
        "nexttoken.convert",
        "nexttoken.gate",
        "nexttoken.curate",
        "nexttoken.judge",
        "nexttoken.report.tokens",
        "nexttoken.sample_instruct",
    ],
)
def test_commands_start_without_torch(command):
    code = f"import sys, {command}; print(*({HEAVY!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
