"""Fixtures that several test files share: where the real data is, and small models built on the spot."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Real data and weights beside the checkout ($NEXTTOKEN_SHARED elsewhere); tests that need them skip by name."""
    path = Path(os.environ.get("NEXTTOKEN_SHARED", REPOSITORY.parent / "shared"))
    if not path.is_dir():
        pytest.skip(f"no shared data at {path}")
    return path
