"""Files of rows: CSV, Parquet, JSON and JSON lines, as every task, corpus and command reads them; archives of them."""

import io
import shutil
import zipfile
from pathlib import Path

import pandas as pd
import yaml

from fuzz.target import Target, file_target
from nexttoken.commands.archive import unpack
from nexttoken.commands.new import NewArguments, problems, prompt_text, task_text
from nexttoken.tasks.guesses.table import guess_table
from nexttoken.tasks.guesses.table_files import TableFiles
from support.read_files import sound_readers

TABLE = pd.DataFrame(
    {"id": ["007", "8", "9", "10"], "body": ["a b", "c d", "e f", "g h"], "label": ["x", "y", "x", "y"]}
)


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


def tables(folder: Path) -> Target:
    """Tables of an unknown competition, of which a configuration is guessed."""
    readers = []
    for ending in (".csv", ".parquet"):
        path = folder / ending[1:] / f"train{ending}"
        path.parent.mkdir()
        TABLE.to_csv(path, index=False) if ending == ".csv" else TABLE.to_parquet(path)
        readers.append((path, guess))
    return file_target(readers, says_name=False)  # a table without a label is refused as a folder's


def guess(path: Path) -> None:
    """Guess the task of a table; what is written of it is YAML."""
    given = NewArguments.parse(["name=mine", f"input_dir={path.parent}"])
    found = guess_table(TableFiles.read(path.parent), None, None)
    for text in (task_text(given, found), prompt_text("mine", found)):
        assert isinstance(yaml.safe_load(text), dict)
    problems(given, found)


def archives(folder: Path) -> Target:
    """Downloaded archives, which are unpacked."""
    with zipfile.ZipFile(data := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("train.csv", "test.csv", "below/notes.txt"):
            archive.writestr(name, "id,text\n1,a\n" * 20)
    (path := folder / "x.zip").write_bytes(data.getvalue())

    def read(path: Path) -> None:
        try:
            unpack(path, folder / "unpacked", ("train*",))
        finally:
            shutil.rmtree(folder / "unpacked", ignore_errors=True)
            assert [one.name for one in folder.iterdir()] == [path.name]

    return file_target([(path, read)])
