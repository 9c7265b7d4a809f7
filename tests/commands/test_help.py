"""The help of every command: an example first, and a line for every argument."""

import inspect
import re
import subprocess
import sys
from importlib import import_module

import pytest

from nexttoken.__main__ import commands
from nexttoken.commands.arguments import Arguments
from support.commands import refusal

USAGES = commands()


@pytest.mark.parametrize("name", USAGES)
def test_help_begins_with_an_example_and_has_a_line_for_every_argument(name):
    first, empty, example, *_ = USAGES[name].splitlines()
    assert re.match(r"[A-Z].{20,}\.$", first)
    assert empty == ""
    assert f"{example} ".startswith(f"python -m nexttoken {name} ")
    module = import_module(f"nexttoken.commands.{name}")
    kinds = [kind for _, kind in inspect.getmembers(module, inspect.isclass) if issubclass(kind, Arguments)]
    (given,) = [kind for kind in kinds if kind.__module__ == module.__name__]
    keys = {info.alias or field for field, info in given.model_fields.items()} - {"paths", "overrides"}
    described = set(re.findall(r"^  (\w+)=\S+  +\S", USAGES[name], flags=re.M))
    assert keys <= described
    if "overrides" not in given.model_fields:
        assert described <= keys


def test_the_list_has_a_line_for_every_command():
    done = subprocess.run([sys.executable, "-m", "nexttoken"], capture_output=True, text=True, check=True)
    for name, usage in USAGES.items():
        assert re.search(rf"^  {name} +{re.escape(usage.splitlines()[0])}$", done.stdout, flags=re.M)


def test_an_unknown_command_is_one_line_with_the_nearest():
    done = subprocess.run([sys.executable, "-m", "nexttoken", "reprot"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "no command is called 'reprot'; did you mean 'report'?\n")


@pytest.mark.parametrize("name", USAGES)
def test_every_command_refuses_an_unknown_option_in_the_same_words(name, capsys):
    line = refusal(capsys, name, "--foo")
    assert line == "unknown option '--foo'; arguments are key=value or paths, --help shows them"
