"""Files of rows: CSV, Parquet, JSON and JSON lines, as every task, corpus and command reads them."""

from pathlib import Path

from fuzz.target import Target, file_target
from support.read_files import sound_readers


def csv(folder: Path) -> Target:
    return files(folder, ".csv", ".tsv")


def parquet(folder: Path) -> Target:
    return files(folder, ".parquet")


def json(folder: Path) -> Target:
    return files(folder, ".json")


def json_lines(folder: Path) -> Target:
    return files(folder, ".jsonl", ".txt")


def files(folder: Path, *endings: str) -> Target:
    """The readers of files with these endings."""
    return file_target(reader for reader in sound_readers(folder).values() if reader[0].suffix in endings)
