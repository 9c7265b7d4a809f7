"""Comparing hand-made runs: one line where the runs, the setting or a file cannot be used."""

from pathlib import Path

import pytest

from support.commands import refusal, status_of
from support.finished_runs import damage, write_finished_fold


@pytest.fixture
def output(tmp_path) -> Path:
    for rate in (0.001, 0.002):
        write_finished_fold(tmp_path / "lmsys" / f"rate {rate}", fit={"learning_rate": rate})
    return tmp_path / "lmsys"


def test_two_runs_are_compared_and_the_page_names_its_command(output, tmp_path, capsys):
    page = tmp_path / "new folder" / "page.md"
    assert status_of("compare", [str(output), "by=fit.learning_rate", "metric=accuracy", f"out={page}"]) == 0
    shown = capsys.readouterr().out
    assert f"wrote {page}" in shown
    text = page.read_text(encoding="utf-8")
    assert "0.001" in text
    assert "0.002" in text
    assert f"python -m nexttoken compare '{output}'" in text or f"python -m nexttoken compare {output}" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["by=nothing"], "no run has the key 'nothing' in its config.yaml"),
        (["by=fit.learning_rat"], "did you mean 'fit.learning_rate'?"),
        (["by=seed"], "name a setting, such as head or adapter.r"),
        (["by=head"], "differ in more than head (fit.learning_rate: 0.001 -> 0.002)"),
        (["by=fit.learning_rate", "metric=acuracy"], "did you mean 'accuracy'?"),
        (["by=fit.learning_rate", "baseline=zzz"], "zzz"),
        ([], "by= is missing"),
        (["by=head", "by=head"], "by= is given twice"),
    ],
)
def test_a_wrong_argument_is_one_line(output, capsys, arguments, words):
    assert words in refusal(capsys, "compare", output, *arguments)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("folds.csv", "", "is not a table of folds"),
        ("folds.csv", "a,b\n1,2\n", "is not a table of folds"),
        ("folds.csv", None, "is not a table of folds"),
        ("folds.csv", "id,group,fold\n1,x,y\n", "delete it and run again"),
        ("folds.csv", "id,group,fold\n1,0,0\n", "lacks the ids 0-0, 0-1, 0-10"),
        ("fold0/config.yaml", b"\xff\xfe", "is not YAML in UTF-8"),
        ("fold0/oof.csv", "", "is empty"),
    ],
)
def test_a_damaged_file_is_one_line(output, capsys, file, content, words):
    damage(output / "rate 0.002" / file, content)
    assert words in refusal(capsys, "compare", output, "by=fit.learning_rate")


def test_ids_that_folds_csv_lacks_come_with_the_fix(output, capsys):
    damage(output / "rate 0.001" / "folds.csv", "id,group,fold\n1,0,0\n")
    assert "train this run again with overwrite=true" in refusal(capsys, "compare", output, "by=fit.learning_rate")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", None])
def test_a_damaged_hash_of_the_data_is_no_traceback(output, capsys, content):
    damage(output / "rate 0.001" / "fold0" / "data.sha256", content)
    assert refusal(capsys, "compare", output, "by=fit.learning_rate")
