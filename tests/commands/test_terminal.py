"""The output of a command: errors of one line, no control characters of the data, and silence where nobody reads."""

import fcntl
import logging
import os
import re
import struct
import subprocess
import sys
import termios

import pytest

from nexttoken.commands.terminal import VisibleFormatter, stop
from nexttoken.report.markdown import markdown
from nexttoken.report.terminal import show, show_value

HEADER = ["run", *(f"fold {number}" for number in range(12))]
PAGE = "\n\n".join(
    [
        "## a sample",
        markdown(HEADER, [["a **name**", *["0.8123"] * 12], ["<b>|`x`", *["1.2"] * 12]]),
        "a long line of words " * 9 + "end",
        "python a.py\nwrote b.csv",
    ]
)


def on_a_terminal(num_columns: int, call: str = f"show({PAGE!r})", **environment: str) -> str:
    """The text that a call writes to a terminal of this width."""
    leader, follower = os.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, num_columns, 0, 0))
    code = f"from nexttoken.report.terminal import show, show_value; {call}"
    known = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "FORCE_COLOR")}
    subprocess.run(
        [sys.executable, "-c", code], stdout=follower, check=True, env=known | {"TERM": "xterm"} | environment
    )
    os.close(follower)
    with os.fdopen(leader, "rb") as stream:
        return os.read(stream.fileno(), 65536).decode().replace("\r\n", "\n")


@pytest.mark.parametrize("num_columns", [60, 100, 240])
def test_a_page_is_drawn_within_a_hundred_columns_of_a_terminal(num_columns: int) -> None:
    written = on_a_terminal(num_columns)
    shown = re.sub("\x1b\\[[0-9;]*m", "", written)
    assert shown != written, "headings and tables have colours"
    assert max(map(len, shown.splitlines())) <= min(100, num_columns)
    assert "|" not in shown.replace("<b>|`x`", "")
    assert "\x1b" not in shown
    assert shown.endswith("python a.py\nwrote b.csv\n"), "lines to be copied stay as they are"
    assert num_columns < 100 or shown.count("0.8123") == 12


def test_a_terminal_without_colours_or_drawing_gets_none(capsys) -> None:
    assert not re.search("\x1b\\[[0-9;]*3[0-9]", on_a_terminal(100, NO_COLOR="1"))
    assert on_a_terminal(100, TERM="dumb") == f"{PAGE}\n"
    show(PAGE)
    assert capsys.readouterr().out == f"{PAGE}\n", "a file and a pipe get Markdown"


def test_an_error_is_one_line_without_control_characters(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        stop("a\nfile \x1b[2J\ud800 is not there", 2)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "a file \\x1b[2J\\ud800 is not there\n"


def test_log_lines_show_escapes() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "genre %s", ("\x1b]0;title\x07",), None)
    assert VisibleFormatter("%(message)s").format(record) == "genre \\x1b]0;title\\x07"


def test_a_long_value_goes_on_below_itself(capsys) -> None:
    value = " ".join(f"model.key-{number}=value" for number in range(12))
    lines = on_a_terminal(100, f"show_value('changed', {value!r})").splitlines()
    assert len(lines) > 1
    assert max(map(len, lines)) <= 100
    assert [line[:10] for line in lines] == ["changed   ", *[" " * 10] * (len(lines) - 1)]
    show_value("changed", value)
    assert capsys.readouterr().out == f"changed   {value}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["curate", "--help"]])
def test_a_reader_that_leaves_ends_a_command_without_a_word(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "nexttoken", *arguments]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")
