"""The comparison of a sample's tracked files with freshly written ones."""

from collections.abc import Iterable
from pathlib import Path


def assert_same_files(fresh: Path, tracked: Path, files: Iterable[str], pattern: str = "*") -> None:
    """Both folders hold `files` and no others that match `pattern`, with the same bytes."""
    for folder in (fresh, tracked):
        assert {str(path.relative_to(folder)) for path in folder.rglob(pattern) if path.is_file()} == {*files}
    for name in files:
        assert (fresh / name).read_bytes() == (tracked / name).read_bytes(), name
