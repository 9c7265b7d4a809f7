"""The output of a command: errors of one line, no control characters of the data, and silence where nobody reads."""

import logging
import os
import subprocess
import sys

import pytest

from nexttoken.commands.terminal import VisibleFormatter, stop


def test_an_error_is_one_line_without_control_characters(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        stop("a\nfile \x1b[2J\ud800 is not there", 2)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "a file \\x1b[2J\\ud800 is not there\n"


def test_log_lines_show_escapes() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "genre %s", ("\x1b]0;title\x07",), None)
    assert VisibleFormatter("%(message)s").format(record) == "genre \\x1b]0;title\\x07"


@pytest.mark.parametrize("arguments", [["--help"], ["curate", "--help"]])
def test_a_reader_that_leaves_ends_a_command_without_a_word(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "nexttoken", *arguments]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")
