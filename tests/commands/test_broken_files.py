"""A file of conf/ that is broken, and a value that no file could hold, are one line instead of a traceback."""

import shutil
import subprocess
import sys

import pytest

from nexttoken.commands.entry import compose
from nexttoken.commands.terminal import fault_of_machine
from nexttoken.errors import UserError
from support.composed import CONF

BROKEN = {
    "cut": (b"task: {name: x\n", "mine.yaml:2 is no YAML: expected ',' or '}', but got '<stream end>'"),
    "a tab": (b"task:\n\tname: x\n", "mine.yaml:2 is no YAML: found character '\\t' that cannot start any token"),
    "given twice": (b"fold: 1\nfold: 2\n", "mine.yaml:2 is no YAML: found duplicate key fold"),
    "a control character": (b"name: \x19\n", "mine.yaml is no YAML: special characters are not allowed"),
    "another encoding": ("name: é\n".encode("cp1252"), "mine.yaml is not UTF-8"),
    "nested": (b"[" * 50_000, "is nested too deeply"),
    "defaults": (b"defaults: x\n", "Invalid defaults list in 'experiment/mine', defaults must be a list (got str)"),
    "a header": (b"# @package\nfold: 1\n", "Expected header format"),
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(CONF, folder / "conf")
    shutil.copy(CONF.parent / "train.py", folder)
    return folder


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_file_is_named(checkout, monkeypatch, how):
    data, words = BROKEN[how]
    (checkout / "conf" / "experiment" / "mine.yaml").write_bytes(data)
    monkeypatch.chdir(checkout)
    with pytest.raises(UserError) as caught:
        compose("train", ["experiment=mine"])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("task=" + "a" * 5_000, "cannot be read (File name too long); give a choice that --help lists"),
        ("fold=" + "9" * 5_000, "the configuration cannot be composed: Exceeds the limit (4300 digits)"),
        ("fold=" + "[" * 5_000, "Error parsing override"),
    ],
)
def test_a_giant_value_is_one_short_line(repository, monkeypatch, override, words):
    monkeypatch.chdir(repository)
    with pytest.raises(UserError) as caught:
        compose("train", [override])
    assert words in str(caught.value)
    assert len(str(caught.value)) <= 2_000


def test_a_giant_path_is_a_short_line():
    line = fault_of_machine(OSError(36, "File name too long", "a" * 3_000))
    assert len(line) < 700
    assert "File name too long; give another path" in line


def test_the_entry_says_the_same_line(checkout):
    (checkout / "conf" / "experiment" / "mine.yaml").write_bytes(BROKEN["cut"][0])
    command = [sys.executable, "train.py", "experiment=mine"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=120)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert BROKEN["cut"][1] in done.stderr
