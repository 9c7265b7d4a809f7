"""Commands killed at random moments: nothing that was reported as saved is lost, and the results are the same.

A moment is a time, or a change of the file system: before it, after it, or in the middle of it.
"""

import json
import os
import random
import re
import signal
import time
from pathlib import Path

import pytest

from support.fork_server import COUNT, KILL_AFTER, KILL_BEFORE, TEAR
from support.scenes import IS_LONG, KILLS, QUICK, SCENES, Scene, difference, litter, results
from support.sound_files import unsound

pytestmark = pytest.mark.slow

REPORTED = re.compile(r"^(?:.*, )?(run|submission|answers and scores): ([^,\n]+)", re.M)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", SCENES if IS_LONG else QUICK)
def test_a_command_that_is_killed_ends_as_one_that_was_not(checkouts, seed, name) -> None:
    moments = random.Random(f"{seed} {name}")
    whole = checkouts.new(name)
    start = time.monotonic()
    status, words = checkouts.call(SCENES[name].argv, whole, fault=(COUNT, 0))
    seconds, number = time.monotonic() - start, len(checkouts.changes(whole))
    assert status == 0, words
    expected = results(whole)
    left = number_of_kills = 4 if SCENES[name].is_slow else -(-KILLS // len(QUICK))
    rounds = 0
    while left > 0:
        rounds += 1
        checkout, story = checkouts.new(name), [f"seed {seed}"]
        for _ in range(min(left, moments.randint(1, 4))):
            before = saved_answers(checkout)
            story.append(kill(checkouts, checkout, SCENES[name], moments, seconds, number))
            left -= "killed" in story[-1]
            assert not unsound(checkout), (story, unsound(checkout))
            assert not missing(checkout), (story, missing(checkout))
            assert not lost(before, checkout), (story, lost(before, checkout))
        status, words = checkouts.call(SCENES[name].argv, checkout)
        assert status == 0 or SCENES[name].refuses(words), (story, words)
        assert not difference(results(checkout), expected), (story, difference(results(checkout), expected))
        assert not litter(checkout), (story, litter(checkout))
        checkouts.remove(checkout)
    print(f"{name}: {number_of_kills} kills, then {rounds} times the same results ({seconds:.1f} s, {number} changes)")


def kill(checkouts, checkout: Path, scene: Scene, moments: random.Random, seconds: float, number: int) -> str:
    """Start the command, kill it at a moment, and say when; it may have ended before."""
    if moments.random() < 0.5:
        after = moments.uniform(0, seconds)
        process = checkouts.begin(scene.argv, checkout)
        time.sleep(after)
        moment = f"{after:.3f} s after its start"
        try:
            os.killpg(process, signal.SIGKILL)
        except ProcessLookupError:
            moment = "at no time"
    else:
        kind, at = moments.choice([KILL_BEFORE, KILL_AFTER, TEAR]), moments.randint(1, number)
        checkouts.begin(scene.argv, checkout, fault=(kind, at))
        moment = f"{['before', 'after', 'in'][kind - KILL_BEFORE]} change {at}"
    status = checkouts.server.wait()
    words = (checkout / "words").read_text()
    assert status in (0, -signal.SIGKILL) or scene.refuses(words), (moment, status, words)
    return f"{'killed' if status == -signal.SIGKILL else 'ended'} {moment}"


def missing(checkout: Path) -> list[str]:
    """The paths of finished folds and submissions that a killed command has named and that are not there."""
    named = REPORTED.findall((checkout / "words").read_text())
    paths = [(checkout / path, kind != "submission") for kind, path in named]
    return [str(path) for path, is_run in paths if not (any(path.rglob("metrics.json")) if is_run else path.exists())]


def saved_answers(checkout: Path) -> dict[Path, set[str]]:
    """The keys of all answers in each journal."""
    journals = [*checkout.glob("output/*/*/*/answered/*.jsonl"), *checkout.glob("submissions/written/**/*.jsonl")]
    return {path: {json.loads(line)["key"] for line in path.read_bytes().split(b"\n")[1:-1]} for path in journals}


def lost(before: dict[Path, set[str]], checkout: Path) -> list[str]:
    """The journals that have fewer answers than before; those of a finished fold are not needed."""
    now = saved_answers(checkout)
    unfinished = {path for path in before if not (path.parent.parent / "metrics.json").exists()}
    return [str(path) for path in unfinished if before[path] - now.get(path, set())]
