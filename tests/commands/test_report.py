"""The report of hand-made runs: its files, and one line for every file that is damaged."""

from pathlib import Path

import pytest

from support.commands import refusal, status_of
from support.finished_runs import damage, write_finished_fold


@pytest.fixture
def run_folder(tmp_path) -> Path:
    run = tmp_path / "lmsys" / "a run"
    write_finished_fold(run)
    return run


def test_a_run_in_a_path_with_spaces_is_reported(run_folder, capsys):
    assert status_of("report", [str(run_folder)]) == 0
    assert "1.0986" in capsys.readouterr().out
    assert "1.0986" in (run_folder / "report" / "report.md").read_text(encoding="utf-8")
    assert (run_folder / "report" / "pictures" / "reliability_a run_sample.png").stat().st_size > 1000
    assert not (run_folder / "report" / "pictures" / "learning_curves.png").exists()


def test_a_missing_config_leaves_the_report_whole(run_folder, capsys):
    (run_folder / "fold0" / "config.yaml").unlink()
    assert status_of("report", [str(run_folder), f"out={run_folder / 'elsewhere'}"]) == 0
    assert (run_folder / "elsewhere" / "report.md").exists()


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("config.yaml", "{a: [", "config.yaml is not YAML in UTF-8; train this fold again"),
        ("config.yaml", b"\xff\xfe\x00", "config.yaml is not YAML in UTF-8; train this fold again"),
        ("config.yaml", "", "does not hold a configuration; train this fold again"),
        ("config.yaml", None, "config.yaml cannot be read (Is a directory)"),
        ("metrics.json", "{", "metrics.json cannot be read as JSON"),
        ("metrics.json", "[]", "metrics.json holds list, expected a JSON object"),
        ("metrics.json", b"\xff", "metrics.json cannot be read as JSON"),
        ("metrics.json", "{}", "metrics.json has no 'log_loss'; run the fold again"),
        ("oof.csv", "", "oof.csv is empty"),
        ("oof.csv", None, "oof.csv cannot be read (Is a directory)"),
        ("oof.csv", b"\xff\xfe\x00", "oof.csv is not UTF-8"),
        ("oof.csv", "id,fold,label,a\n", "oof.csv has no rows below its header"),
        ("oof.csv", "a,b\n1,2\n", "rename its columns, or run the fold again"),
        ("oof.csv", 'id,fold,label,"a\n', "unexpected end of data"),
        ("oof.csv", "id,fold,label,a\n1,0,0\n", "mend these rows, or run the fold again"),
        ("oof.csv", "id,fold,label,a,b\n1,0,x,.5,.5\n", "'x'; run the fold again"),
        ("oof.csv", "id,fold,label,a,b\n1,0,0,.5,.5\n", "has 1 rows of log loss 0.69315"),
        ("curve.csv", "", "curve.csv is broken"),
        ("curve.csv", None, "delete it to do without the learning curve"),
        ("curve.csv", "a,b\n1,2\n", "delete it to do without the learning curve"),
    ],
)
def test_a_damaged_file_is_one_line_with_the_fix(run_folder, capsys, file, content, words):
    damage(run_folder / "fold0" / file, content)
    line = refusal(capsys, "report", run_folder)
    assert words in line
    assert str(run_folder / "fold0" / file) in line
    assert not (run_folder / "report" / "report.md").exists()


def test_a_task_that_is_no_mapping_in_the_config_leaves_the_known_metrics(run_folder, capsys):
    damage(run_folder / "fold0" / "config.yaml", "task: 3\n")
    assert status_of("report", [str(run_folder)]) == 0
    assert "accuracy" in capsys.readouterr().out


def test_paths_that_cannot_be_used_are_one_line(run_folder, tmp_path, capsys):
    file = tmp_path / "a file"
    file.write_text("x\n")
    assert "holds no finished run" in refusal(capsys, "report", file)
    assert "holds no finished run" in refusal(capsys, "report", tmp_path / "nowhere")
    assert "holds no finished run" in refusal(capsys, "report", run_folder / "fold0")
    assert "a path is missing" in refusal(capsys, "report")
    assert refusal(capsys, "report", file, file).startswith("2 paths are given")
    assert f"{file}: File exists; give another path" in refusal(capsys, "report", run_folder, f"out={file}")
    assert "Is a directory): expected a ledger" in refusal(capsys, "report", run_folder, f"ledger={tmp_path}")
    assert "expected the header time,file" in refusal(capsys, "report", run_folder, f"ledger={file}")
    assert "did you mean 'ledger'?" in refusal(capsys, "report", run_folder, "leger=x")
    assert "published='maybe' is not accepted" in refusal(capsys, "report", run_folder, "published=maybe")
    assert "out=' has no value" in refusal(capsys, "report", run_folder, "out=")
