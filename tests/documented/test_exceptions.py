"""The commands that `make docs` leaves out or prepares are commands of the pages."""

import re

import pytest

from documented.commands import commands
from documented.exceptions import BEFORE, SKIPPED, reason_to_skip

TEXTS = [command.text for command in commands()]


@pytest.mark.parametrize("pattern", [*SKIPPED, *BEFORE])
def test_an_exception_is_that_of_a_command(pattern):
    assert [text for text in TEXTS if re.search(pattern, text)]


def test_a_command_that_is_run_has_no_placeholder_left():
    left = [command.typed for command in commands() if not reason_to_skip(command.text)]
    assert not [text for text in left if re.search(r"<\w|>|\.\.\.|\bNAME\b", text)]
