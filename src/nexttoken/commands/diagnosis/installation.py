"""Python and the packages: versions against the ranges of pyproject.toml."""

import platform
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from nexttoken.commands.diagnosis.finding import Finding
from nexttoken.errors import first_five
from nexttoken.runs.made_with import PACKAGE, commit, installed

PROJECT = PACKAGE.parents[1] / "pyproject.toml"
FOR_DEVELOPERS = {"test"}  # extras that no run needs
INSTALL = "pip install -e ."


def check_installation(project: Path = PROJECT) -> list[Finding]:
    """Python, the required packages and the extras. An installed copy without pyproject.toml names its own ranges."""
    python, required, extras = _wanted(project)
    return [_python(python), _packages(required), *_extras(extras)]


def _wanted(project: Path) -> tuple[str, list[Requirement], dict[str, list[Requirement]]]:
    """The range of Python, the required packages, and those of each extra."""
    if project.is_file():
        table: dict[str, Any] = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
        extras = {name: _parsed(lines) for name, lines in table["optional-dependencies"].items()}
        return table["requires-python"], _parsed(table["dependencies"]), extras
    about = metadata.metadata("nexttoken")
    named = _parsed(about.get_all("Requires-Dist") or ())
    optional = {
        extra: [one for one in named if one.marker and one.marker.evaluate({"extra": extra})]
        for extra in about.get_all("Provides-Extra") or ()
    }
    return str(about["Requires-Python"]), [one for one in named if not one.marker], optional


def _parsed(lines: Iterable[str]) -> list[Requirement]:
    return [Requirement(line) for line in lines]


def _python(wanted: str) -> Finding:
    version = platform.python_version()
    text = f"{version} on {platform.platform()}; code of commit {(commit() or 'unknown')[:12]}"
    if not SpecifierSet(wanted).contains(version):
        return Finding("python", text, f"use Python {wanted}: python3.11 -m venv .venv", breaks=True)
    return Finding("python", text)


def _packages(required: list[Requirement]) -> Finding:
    missing = [one for one in required if installed(one.name) is None]
    others = [f"{one.name} {installed(one.name)} is not {one.specifier}" for one in required if _is_outside(one)]
    if missing or others:
        absent = [f"{one.name} is not installed" for one in missing]
        return Finding("packages", first_five([*absent, *others]), INSTALL, breaks=True)
    main = ", ".join(f"{name} {installed(name)}" for name in ("torch", "transformers", "peft", "lightning"))
    return Finding("packages", f"all {len(required)} within the ranges of pyproject.toml: {main}")


def _extras(extras: dict[str, list[Requirement]]) -> list[Finding]:
    wanted = {name: some for name, some in extras.items() if name not in FOR_DEVELOPERS}
    outside = [
        f"{one.name} {installed(one.name)} is not {one.specifier} ({name})"
        for name, some in wanted.items()
        for one in some
        if _is_outside(one)
    ]
    absent = [name for name, some in wanted.items() if any(installed(one.name) is None for one in some)]
    found = [Finding("extras", first_five(outside), INSTALL)] if outside else []
    if absent:
        text = f"not installed: {', '.join(absent)}; where one is wanted: pip install -e '.[{absent[0]}]'"
        found.append(Finding("extras", text))
    return found


def _is_outside(one: Requirement) -> bool:
    version = installed(one.name)
    return version is not None and not one.specifier.contains(version, prereleases=True)
