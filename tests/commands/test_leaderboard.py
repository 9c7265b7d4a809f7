"""`leaderboard`: scores go into the ledger, mistakes are one line and change nothing."""

import pytest

from nexttoken.runs.ledger import read_ledger, record
from support.commands import refusal, status_of


@pytest.fixture
def submission(tmp_path):
    path = tmp_path / "scratch.csv"
    path.write_text("id,a\n1,0.5\n")
    record(path, "output/lmsys/scratch", (0,), 0.95)
    return path


def test_a_score_is_added_and_shown(submission, capsys):
    assert status_of("leaderboard", ["add", f"file={submission}", "public=0.98"]) == 0
    assert "scratch.csv, public 0.98, private None" in capsys.readouterr().out
    assert status_of("leaderboard", [f"ledger={submission.with_name('ledger.csv')}"]) == 0
    shown = capsys.readouterr().out
    assert "0.9500" in shown
    assert "first pick: scratch.csv" in shown
    assert "second pick: none" in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["add", "public=0.98"], "add needs file="),
        (["add", "file={}"], "add needs file="),
        (["add", "file={}", "public=nan"], "should be a finite number"),
        (["add", "file={}x", "public=1"], "did you mean 'scratch.csv'"),
        (["file={}", "public=1"], "write add before them"),
        (["remove", "file={}"], "expected `add` or nothing, got remove"),
        (["ledger={}.none"], "has no submissions yet"),
    ],
)
def test_mistakes_are_one_line_and_change_nothing(submission, capsys, arguments, words):
    ledger = submission.with_name("ledger.csv")
    before = ledger.read_bytes()
    assert words in refusal(capsys, "leaderboard", *(argument.format(submission) for argument in arguments))
    assert (ledger.read_bytes(), len(read_ledger(ledger))) == (before, 1)
