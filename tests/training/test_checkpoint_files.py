"""Checkpoints on disk: read back as they were written, and refused with their name where a single bit has changed."""

from pathlib import Path

import pytest
import torch

from nexttoken.errors import UserError
from nexttoken.training.callbacks import read_checkpoint, write_checkpoint

STATE = {"step": 3, "weights": torch.arange(1000.0)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_checkpoint(STATE, tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def test_a_checkpoint_comes_back(path: Path) -> None:
    found = read_checkpoint(path)
    assert found["step"] == 3
    assert torch.equal(found["weights"], STATE["weights"])


@pytest.mark.parametrize("part", [0.25, 0.5, 0.75])
def test_a_changed_bit_is_refused_with_the_file_s_name(path: Path, part: float) -> None:
    """torch does not compare the archive's checksums."""
    data = bytearray(path.read_bytes())
    data[int(len(data) * part)] ^= 64
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"last\.ckpt cannot be loaded \(.*\); overwrite=true trains this fold again"):
        read_checkpoint(path)


@pytest.mark.parametrize("size", [0, 100, 2000])
def test_a_cut_checkpoint_is_refused(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=r"last\.ckpt cannot be loaded \(\S.*\)"):
        read_checkpoint(path)
