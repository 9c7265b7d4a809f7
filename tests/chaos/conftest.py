"""The commands' server under the library of faults; without a C compiler the tests are skipped by name."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.fork_server import ForkServer
from support.scenes import Checkouts

SOURCE = Path(__file__).resolve().parents[1] / "support" / "faults.c"


@pytest.fixture(scope="session")
def checkouts(tmp_path_factory):
    """New checkouts for each scene, whose commands can be disturbed."""
    if not (compiler := shutil.which("cc") or shutil.which("gcc")):
        pytest.skip("no C compiler, which the library of faults needs")
    folder = tmp_path_factory.mktemp("chaos")
    library = folder / "faults.so"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"], check=True)
    with ForkServer(library) as server:
        yield Checkouts(folder, server)


@pytest.fixture(scope="session")
def seed() -> int:
    """Of the moments; a failure names it, and the same seed chooses the same moments again."""
    return int(os.environ.get("NEXTTOKEN_CHAOS_SEED", 0))
