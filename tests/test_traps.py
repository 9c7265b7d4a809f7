"""Every trap of docs/traps.md is shown by a test that exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROWS = [line for line in (ROOT / "docs" / "traps.md").read_text(encoding="utf-8").splitlines() if line[:2] == "| "]
TRAPS = {cells[1].strip(): cells[-2] for cells in (row.split("|") for row in ROWS) if "trap" not in cells[1]}


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_names_tests_that_exist(trap):
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", TRAPS[trap])
    assert named
    for path, test in named:
        assert re.search(rf"^def {test}\(", (ROOT / path).read_text(encoding="utf-8"), re.M), f"{path} has no {test}"


def test_the_page_has_traps_of_labels_data_and_the_last_step():
    assert len(TRAPS) > 40
