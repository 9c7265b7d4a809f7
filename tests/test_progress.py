"""Progress is silent at first, then plain lines at intervals or a bar, and never a time left of nonsense."""

import io
import re
import sys
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexttoken import progress as module
from nexttoken.progress import Deadline, Progress, TimeIsUp, seconds_of, time_limit


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.floats(0, 1e9), st.integers(0, 10**12))
def test_every_line_has_a_time_left_of_minutes_and_seconds(total: int, rows: int, seconds: float, first: int) -> None:
    progress = Progress(total, "train")
    progress.start_at(first)
    progress.done += rows
    line = progress.line(seconds)
    assert line.startswith(f"train: {first + rows}/{total} rows, ")
    assert line.endswith("time left unknown") is (rows == 0)
    assert rows == 0 or re.fullmatch(r".* rows/s, \d+:[0-5]\d left", line)
    assert progress.line(seconds, "loss 0.98") == f"{line}, loss 0.98"


@pytest.mark.parametrize(
    ("done", "seconds", "line"),
    [
        (640, 640 / 212, "x: 640/3200 rows, 212 rows/s, 0:12 left"),
        (3, 10.0, "x: 3/3200 rows, 0.3 rows/s, 177:36 left"),
        (3300, 10.0, "x: 3300/3200 rows, 330 rows/s, 0:00 left"),
        (0, 10.0, "x: 0/3200 rows, 0 rows/s, time left unknown"),
        (3200, 0.0, "x: 3200/3200 rows, 3200000000000 rows/s, 0:00 left"),
    ],
)
def test_lines_by_example(done: int, seconds: float, line: str) -> None:
    progress = Progress(3200, "x")
    progress.done = done
    assert progress.line(seconds) == line


def test_rows_of_before_count_as_done_and_not_in_the_rate(clock) -> None:
    progress = Progress(100, "x")
    progress.start_at(50)
    progress.done += 10
    assert progress.line(5.0) == "x: 60/100 rows, 2 rows/s, 0:20 left"


def test_nothing_for_five_seconds_then_a_line_every_ten(clock, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Progress(1000, "x") as progress:
        for second in range(60):
            clock[0] = float(second)
            progress.advance(1)
    lines = sys.stderr.getvalue().splitlines()
    assert [line.split("/")[0] for line in lines] == ["x: 11", "x: 21", "x: 31", "x: 41", "x: 51"]


@pytest.mark.parametrize("what", ["train", "curate 1/2, [/b] {x}", "日本"])
def test_a_bar_shows_any_name_and_is_removed_after_an_error(clock, monkeypatch, what: str) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())

    def fail() -> None:
        with Progress(10, what) as progress:
            progress.advance(1)
            assert progress._bar is None
            clock[0] = 6.0
            progress.advance(1, "[red] loss [/]")
            progress._bar.refresh()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    shown = sys.stderr.getvalue()
    assert what in shown
    assert "2/10" in shown
    assert shown.endswith(("\x1b[2K", "\x1b[?25h"))  # the line is cleared, the cursor is back


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [("8h30m", 30600), ("45m", 2700), ("90s", 90), ("1.5h", 5400), ("1h1m1s", 3661), (None, None)],
)
def test_durations_by_example(duration: str | None, seconds: float | None) -> None:
    assert seconds_of(duration) == seconds


@pytest.mark.parametrize("duration", ["", "60", 60, "0s", "1m1h", "-5s", "5 s", "inf", "1e3s", True])
def test_other_durations_are_refused_with_examples(duration: object) -> None:
    with pytest.raises(ValueError, match="such as 8h30m, 45m or 90s"):
        seconds_of(duration)


def swallow_errors() -> None:
    while True:
        with suppress(Exception):
            time.sleep(0.001)


def test_a_time_limit_ends_a_loop_that_swallows_every_error() -> None:
    start = time.monotonic()
    with pytest.raises(TimeIsUp), time_limit(0.05):
        swallow_errors()
    assert time.monotonic() - start < 2


def sleep_in_an_inner_limit(events: list[str]) -> None:
    with suppress(TimeIsUp), time_limit(0.05):
        time.sleep(1)
    events.append("inner")
    time.sleep(1)
    events.append("outer")


def test_the_outer_of_two_time_limits_goes_on() -> None:
    events: list[str] = []
    with pytest.raises(TimeIsUp), time_limit(0.2):
        sleep_in_an_inner_limit(events)
    time.sleep(0.3)  # and no limit is left
    assert events == ["inner"]


def test_a_deadline_counts_from_the_start_of_its_program(monkeypatch) -> None:
    assert Deadline(10).left == pytest.approx(10, abs=1)
    monkeypatch.setattr(Deadline, "program_start", None)
    Deadline.note_program_start()
    assert Deadline(10).left < 10 - 0.05  # this process has imported pytest
