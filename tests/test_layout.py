"""The layout of the package: few modules at its root, files of a readable length, names that explain themselves."""

import re

import pytest

from test_imports import MODULES, SOURCE

UNCLEAR = {"base", "rows", "write", "run", "common", "utils", "helpers", "misc"}
UNCLEAR_FIRST_WORDS = ("What", "Which", "How", "Who", "Whether", "Where")


def test_the_root_holds_six_modules_and_twelve_rooms():
    modules = {path.stem for path in SOURCE.glob("*.py")} - {"__init__", "__main__"}
    rooms = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert modules == {"types", "settings", "errors", "progress", "build", "pipeline"}
    assert len(rooms) <= 12


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_has_a_clear_name_a_docstring_and_at_most_250_lines(path):
    text = path.read_text(encoding="utf-8")
    assert path.stem not in UNCLEAR
    assert text.count("\n") <= 250
    assert text.startswith('"""')
    assert not text.startswith(tuple(f'"""{word} ' for word in UNCLEAR_FIRST_WORDS))


def test_docstrings_begin_with_what_a_thing_is_or_does():
    riddle = re.compile(rf'^\s+"""(?:{"|".join(UNCLEAR_FIRST_WORDS)}) ', re.M)
    found = {str(path.relative_to(SOURCE)): len(riddle.findall(path.read_text(encoding="utf-8"))) for path in MODULES}
    assert not {name: count for name, count in found.items() if count}
