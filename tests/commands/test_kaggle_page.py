"""The commands at the beginning of docs/kaggle.md lead from a fold to the push, as they stand there."""

import os
import re
import shlex
import subprocess
import sys

import pytest

from support.kaggle_client import command, refused
from support.training import REPOSITORY


def commands_of_page() -> list[list[str]]:
    page = (REPOSITORY / "docs" / "kaggle.md").read_text(encoding="utf-8")
    lines = re.findall(r"^    python (.*)$", page[: page.index("After the push")], flags=re.M)
    return [shlex.split(line.replace("<user>", "me")) for line in lines]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif("NEXTTOKEN_REHEARSED_VERSIONS" not in os.environ, reason="make test-kernel walks through the page")
def test_the_page_s_commands_lead_to_the_push(tmp_path):
    for name in ("train.py", "conf", "input"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    *before, push = commands_of_page()
    assert [words[:3] for words in before][1:3] == [["-m", "nexttoken", "kernel"]] * 2
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "NEXTTOKEN_CACHE": str(tmp_path / "cache")}
    for words in before:
        run = [sys.executable, *words]
        done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
    assert (tmp_path / "kernel.rehearsal" / "submission.csv").read_text(encoding="utf-8").count("\n") == 301
    assert "cannot be reached" in refused(command(*push[3:], cwd=tmp_path))  # all but the network is there
