"""The ledger keeps one line per submission, whoever writes at the same time and whatever people typed into it."""

import hashlib
import subprocess
import sys
from datetime import datetime

import pytest

from nexttoken.errors import UserError
from nexttoken.runs.asking import mean_scores
from nexttoken.runs.ledger import COLUMNS, add_scores, read_ledger, record, submission_path


@pytest.fixture
def submission(tmp_path):
    path = tmp_path / "submissions" / "scratch.csv"
    path.parent.mkdir()
    path.write_text("id,winner_model_a\n1,0.5\n")
    return path


def test_a_submission_is_recorded_once_with_its_hash_and_open_scores(submission):
    assert record(submission, "output/lmsys/scratch", (0, 1), 0.9012)
    assert not record(submission, "output/lmsys/scratch", (0, 1), 0.9012)
    [line] = read_ledger(submission.with_name("ledger.csv"))
    assert (line.file, line.run, line.folds) == ("scratch.csv", "output/lmsys/scratch", "0 1")
    assert (line.oof_log_loss, line.public_lb, line.private_lb) == (0.9012, None, None)
    assert line.sha256 == hashlib.sha256(submission.read_bytes()).hexdigest()
    assert datetime.fromisoformat(line.time).utcoffset().total_seconds() == 0


def test_the_same_name_with_other_bytes_is_another_line(submission):
    record(submission)
    submission.write_text("id,winner_model_a\n1,0.6\n")
    assert record(submission)
    lines = read_ledger(submission.with_name("ledger.csv"))
    assert [line.file for line in lines] == ["scratch.csv", "scratch.csv"]
    assert lines[0].sha256 != lines[1].sha256


def test_what_people_typed_survives_byte_for_byte(submission):
    ledger = submission.with_name("ledger.csv")
    reordered = ["public_lb", "note", *(column for column in COLUMNS if column != "public_lb")]
    typed = ",".join(reordered) + '\r\n 0.981 ,"said ""good"", twice\n(really)",2025-01-01,old.csv,,0,,abc,\r\n'
    ledger.write_bytes(typed.rstrip().encode("utf-8-sig"))
    record(submission, 'output/lmsys/a,"b"')
    assert ledger.read_bytes().decode().startswith(typed.rstrip())
    old, new = read_ledger(ledger)
    assert (old.public_lb, old.file, new.public_lb, new.run) == (0.981, "old.csv", None, 'output/lmsys/a,"b"')


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "has no column time"),
        (b"time,file\n", "has no column run"),
        (",".join(COLUMNS).encode() + b"\nt,f,r,0,,s,good,\n", "line 2: could not convert string to float: 'good'"),
        ("時刻\n".encode("cp932"), "is not UTF-8"),
    ],
)
def test_a_broken_ledger_is_refused_and_kept(submission, content, reason):
    ledger = submission.with_name("ledger.csv")
    ledger.write_bytes(content)
    with pytest.raises(UserError, match=reason):
        record(submission)
    assert ledger.read_bytes() == content


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
def test_lines_end_as_any_spreadsheet_ends_them(submission, end):
    ledger = submission.with_name("ledger.csv")
    old = end.join([",".join(COLUMNS), "2026-01-01T00:00:00+00:00,old.csv,output/lmsys/old,0,1.01,0,1.02,"])
    for before in (old, old + end):
        ledger.write_bytes(before.encode())
        assert [line.public_lb for line in read_ledger(ledger)] == [1.02]
        assert record(submission)
        assert ledger.read_bytes().startswith(old.encode() + end.encode())
        assert [line.file for line in read_ledger(ledger)] == ["old.csv", "scratch.csv"]


def test_no_ledger_has_no_lines(tmp_path):
    assert read_ledger(tmp_path / "ledger.csv") == []


def test_processes_that_write_at_once_each_get_their_line(tmp_path):
    code = (
        "import sys; from pathlib import Path; from nexttoken.runs.ledger import record\n"
        "for i in range(20):\n"
        "    path = Path(sys.argv[1]) / f'{sys.argv[2]}-{i}.csv'; path.write_text(path.name); record(path)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(number)]) for number in range(4)]
    assert [writer.wait() for writer in writers] == [0] * 4
    files = [line.file for line in read_ledger(tmp_path / "ledger.csv")]
    assert sorted(files) == sorted(f"{number}-{i}.csv" for number in range(4) for i in range(20))


@pytest.mark.parametrize("name", ["ledger", "ledger.csv", "Ledger", "notes", "notes.csv", "folder", "link"])
def test_a_name_that_would_overwrite_anything_but_a_submission_is_refused(tmp_path, name):
    (tmp_path / "ledger.csv").write_text(",".join(COLUMNS) + "\n")
    (tmp_path / "notes.csv").write_text("mine")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "link.csv").symlink_to("nowhere")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises(UserError, match=r"would be overwritten, and is no submission in .*; choose another name="):
        submission_path(tmp_path, name, ".csv")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_a_submission_of_ours_may_be_written_again_and_a_suffix_is_not_doubled(submission):
    record(submission)
    assert submission_path(submission.parent, "scratch", ".csv") == submission
    assert submission_path(submission.parent, "scratch.csv", ".csv") == submission
    assert submission_path(submission.parent, "README.md", ".csv").name == "README.md.csv"
    new = submission_path(submission.parent / "deep" / "er", "x.v2", ".jsonl")
    assert (new.name, new.parent.is_dir(), new.exists()) == ("x.v2.jsonl", True, False)
    submission.with_name("ledger.csv").write_text("time,file\n")
    with pytest.raises(UserError, match="has no column run"):
        submission_path(submission.parent, "scratch", ".csv")


def test_a_way_of_asking_has_its_column_and_older_ledgers_go_without(submission):
    ledger = submission.with_name("ledger.csv")
    record(submission, "output/lmsys/scratch", (0,), None, asked="Demonstrations BM25")
    assert [(line.asked, line.oof_log_loss) for line in read_ledger(ledger)] == [("Demonstrations BM25", None)]
    ledger.write_text(",".join(COLUMNS) + "\n")
    record(submission, "output/lmsys/scratch", (0,), 0.5, asked="Demonstrations BM25")
    assert [(line.asked, line.oof_log_loss) for line in read_ledger(ledger)] == [("", 0.5)]


def test_a_task_with_a_metric_of_its_own_has_its_score_in_the_ledger(submission):
    fold = {"log_loss": 0.5, "metric": "auc", "auc": 0.8, "num_examples": 3}
    scores = mean_scores([fold, fold | {"log_loss": 0.9, "auc": 0.6, "num_examples": 1}])
    assert scores == {"oof_log_loss": pytest.approx(0.6), "metric": "auc", "oof_score": pytest.approx(0.75)}
    record(submission, "output/rules/x", (0, 1), **scores)
    [line] = read_ledger(submission.with_name("ledger.csv"))
    assert (line.oof_log_loss, line.metric, line.oof_score) == (scores["oof_log_loss"], "auc", scores["oof_score"])
    for other in (fold | {"metric": "log_loss"}, fold | {"auc": None}, {"log_loss": 0.5, "num_examples": 3}):
        assert mean_scores([other]) == {"oof_log_loss": 0.5}


def test_scores_are_written_into_their_line_and_all_other_bytes_stay(submission):
    ledger = submission.with_name("ledger.csv")
    reordered = ["public_lb", "note", *(column for column in COLUMNS if column != "public_lb")]
    sha256 = hashlib.sha256(submission.read_bytes()).hexdigest()
    start = f'{",".join(reordered)}\r\n 0.9 ,"two\r\nlines",2025-01-01,other.csv,,0,,abc,\r\n\r\n'
    own, end = f',"said ""good""",2025-01-02,scratch.csv,r,0,1.01,{sha256}', ",a,2025-01-03,scratch.csv,r,0,,gone,"
    ledger.write_bytes(f"{start}{own}\r\n{end}".encode())  # the own line lacks its last cell
    line = add_scores(ledger, "scratch.csv", {"public_lb": 0.98, "private_lb": 0.99})
    assert (line.public_lb, line.private_lb, line.sha256) == (0.98, 0.99, sha256)
    assert ledger.read_bytes().decode() == f"{start}0.98{own},0.99\r\n{end}"
    submission.unlink()  # then the last line of the name is meant
    assert add_scores(ledger, "scratch.csv", {"public_lb": 1.5}).sha256 == "gone"
    assert ledger.read_bytes().decode() == f"{start}0.98{own},0.99\r\n1.5{end}"


def test_a_score_of_an_unknown_file_is_refused_with_the_nearest(submission):
    ledger = submission.with_name("ledger.csv")
    with pytest.raises(UserError, match=r"is not there; python predict\.py writes it"):
        add_scores(ledger, "scratch.csv", {"public_lb": 1.0})
    record(submission)
    before = ledger.read_bytes()
    with pytest.raises(UserError, match=r"has no file=scrath.csv; did you mean 'scratch.csv'"):
        add_scores(ledger, "scrath.csv", {"public_lb": 1.0})
    assert ledger.read_bytes() == before
