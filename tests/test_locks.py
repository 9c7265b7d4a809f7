"""The locks hold a hash for every package that pyproject.toml needs, and an audit claims only what it looked up."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCKS = sorted(ROOT.glob("requirements*.lock"))
LINE = re.compile(r"([a-z0-9-]+)==(\S+)( ; sys_platform == \"linux\")?(( \\\n   )? --hash=sha256:[0-9a-f]{64})+")


def pins(name: str) -> dict[str, str]:
    """The version of every package in a lock."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return {found[1]: found[2] for found in LINE.finditer(text)}


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_every_package_of_a_lock_has_its_hashes_and_nothing_else_stands_there(path):
    assert LINE.sub("", path.read_text(encoding="utf-8")).strip() == ""
    assert pins(path.name)


@pytest.mark.parametrize("extra", ["", "test"])
def test_the_locks_hold_what_the_project_needs(extra):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["optional-dependencies"][extra] if extra else project["dependencies"]
    held = pins("requirements.lock") | pins("requirements-cuda.lock")
    held |= pins("requirements-test.lock") if extra else {}
    for requirement in map(Requirement, wanted):
        version = held.get(canonicalize_name(requirement.name))
        assert version, f"{requirement} is in no lock: make lock"
        assert requirement.specifier.contains(version), f"{requirement}: the lock has {version}: make lock"


def test_both_builds_of_torch_are_one_version_and_the_tests_lock_adds_only():
    assert pins("requirements-cpu.lock") == {"torch": f"{pins('requirements-cuda.lock')['torch']}+cpu"}
    assert not pins("requirements.lock").keys() & pins("requirements-test.lock").keys()
    assert "torch" not in pins("requirements.lock")


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (
            [{"name": "a", "skip_reason": "not found"}],
            0,
            "NOT AUDITED: requirements-cuda.lock and what follows it; no advisories can be reached (not found)",
        ),
        ("no connection", 0, "NOT AUDITED"),
        (
            [{"name": "a", "version": "1", "vulns": []}],
            0,
            "3 of 3 packages audited: 0 advisories, 0 not in SECURITY.md",
        ),
        ([{"name": "a", "version": "1", "vulns": ["CVE-0000-1"]}], 1, "a 1: CVE-0000-1, mended in 2: bad"),
        ([{"name": "torch", "version": "1", "vulns": ["CVE-2025-32434"]}], 0, "3 advisories, 0 not in SECURITY.md"),
    ],
)
def test_an_audit_fails_for_a_new_flaw_and_says_where_nothing_was_looked_up(tmp_path, answer, status, words):
    for one in answer if isinstance(answer, list) else ():
        if flaws := one.get("vulns"):
            one["vulns"] = [{"id": id, "aliases": [], "fix_versions": ["2"], "description": "bad"} for id in flaws]
    printed = json.dumps({"dependencies": answer}) if isinstance(answer, list) else answer
    (tmp_path / "pip_audit.py").write_text(f"print({printed!r})")  # answers as pip-audit does
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "audit"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert words in done.stdout + done.stderr
