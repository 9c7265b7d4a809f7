"""A change of the file system that fails: one line or the same results, and the same command again ends well.

The errors: a disk that is full from then on, one that becomes read-only, one bad sector, a network
file system that is gone.
"""

import errno
import random

import pytest

from support.fork_server import CLOCK_FROM, COUNT, FAIL_FROM, FAIL_ONCE, SLOW_FROM
from support.scenes import IS_LONG, KILLS, QUICK, SCENES, difference, litter, results
from support.sound_files import unsound

pytestmark = pytest.mark.slow

FAULTS = [(FAIL_FROM, errno.ENOSPC), (FAIL_FROM, errno.EROFS), (FAIL_ONCE, errno.EIO), (FAIL_FROM, errno.ESTALE)]
HARMLESS = [(SLOW_FROM, 2), (CLOCK_FROM, 24 * 3600)]  # milliseconds a change or look; seconds back
ENDS = (0, 1, 2, 3)  # 1: a sweep with failed jobs


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", QUICK)
def test_a_failing_change_is_one_line_and_the_same_command_ends_well(checkouts, seed, name) -> None:
    moments = random.Random(f"{seed} {name} writes")
    whole = checkouts.new(name)
    status, words = checkouts.call(SCENES[name].argv, whole, fault=(COUNT, 0))
    assert status == 0, words
    expected, changes = results(whole), checkouts.changes(whole)
    first = list({change: number for number, change in reversed([*enumerate(changes, start=1)])}.values())
    for _ in range(-(-KILLS // len(QUICK))):
        checkout, number, fault = checkouts.new(name), moments.choice(first), moments.choice(FAULTS)
        story = f"seed {seed}: {errno.errorcode[fault[1]]} at change {number} of {name}, {changes[number - 1]}"
        status, words = checkouts.call(SCENES[name].argv, checkout, fault=(fault[0], number, fault[1]))
        assert status in ENDS, (story, status, words)
        assert "Traceback" not in words, (story, words)
        assert status or not difference(results(checkout), expected), (story, words)
        assert not unsound(checkout), (story, unsound(checkout))
        print(story, "->", status, words.splitlines()[-1:])
        status, words = checkouts.call(SCENES[name].argv, checkout)
        assert status == 0 or SCENES[name].refuses(words), (story, words)
        assert not difference(results(checkout), expected), (story, difference(results(checkout), expected))
        assert status or not litter(checkout), (story, litter(checkout))  # one that refuses to begin removes nothing
        checkouts.remove(checkout)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", QUICK if IS_LONG else ["train", "within"])
@pytest.mark.parametrize("fault", HARMLESS, ids=["slow", "clock"])
def test_a_slow_disk_and_a_clock_that_is_set_back_change_nothing(checkouts, name, fault) -> None:
    whole, checkout = checkouts.new(name), checkouts.new(name)
    assert checkouts.call(SCENES[name].argv, whole, fault=(COUNT, 0))[0] == 0
    half = len(checkouts.changes(whole)) // 2
    status, words = checkouts.call(SCENES[name].argv, checkout, fault=(fault[0], half, fault[1]))
    assert status == 0, words
    assert not difference(results(checkout), results(whole))
