"""The processor's memory stays flat over batches of many shapes."""

import os
import subprocess
import sys

import pytest

from nexttoken.models.allocator import CODE_CAPACITIES, keep_freed_memory

PRODUCTS = """
import torch
from nexttoken.models.allocator import keep_freed_memory, release_freed_memory
from nexttoken.models.memory import STATUS
import re
keep_freed_memory()
weights = torch.randn(64, 64, dtype=torch.bfloat16)
held = []
for size in range(100, 700):
    torch.randn(size, 64, dtype=torch.bfloat16) @ weights
    if size in (300, 699):
        release_freed_memory()
        held.append(int(re.search(r"VmRSS:\\s*(\\d+)", STATUS.read_text())[1]) / 1024)
print(held[1] - held[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_products_of_other_sizes_do_not_add_up():
    """400 more sizes held 100 to 200 MiB more, where the processor multiplies 16 bit itself."""
    done = subprocess.run([sys.executable, "-c", PRODUCTS], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 30


def test_a_capacity_that_the_user_sets_is_kept(monkeypatch):
    for name, own in CODE_CAPACITIES.items():
        monkeypatch.setenv(name, "7")
        keep_freed_memory.__wrapped__()
        assert os.environ[name] == "7"
        monkeypatch.delenv(name)
        keep_freed_memory.__wrapped__()
        assert os.environ[name] == own
