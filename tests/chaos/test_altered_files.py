"""Files that a command reads back, cut, emptied, changed or replaced: the same numbers, or one line that names them."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from support.fork_server import KILL_AFTER
from support.scenes import IS_LONG, KILLS, SCENES, command, difference, results

pytestmark = pytest.mark.slow

PREDICT = ("predict.py", "run=output/lmsys/s", "name=again")
# The commands with the file that holds their numbers.
COMMANDS = {
    "predict": (PREDICT, "submissions/again.csv"),
    "report": (command("report", "output/lmsys"), "output/lmsys/report/report.md"),
}
ENDS = (0, 2)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def replace(path: Path) -> None:
    path.unlink()
    path.mkdir()


HARMS = (cut, empty, flip, replace)


def files_of(checkout: Path, *folders: str) -> list[str]:
    found = (path for folder in folders for path in (checkout / folder).rglob("*"))
    return sorted(path.relative_to(checkout).as_posix() for path in found if path.is_file() and path.stat().st_size)


def fault_of(checkouts, checkout: Path, argv: Sequence[str], name: str, sound: Callable[[Path], bool]) -> str:
    """A sentence on a command that read an altered file and went wrong; "" where it is right, or names the file."""
    status, words = checkouts.call(argv, checkout)
    line = (words.splitlines() or [""])[-1]
    print(name, "->", line if status else "the same")
    if status not in ENDS or "Traceback" in words:
        return f"crash: {words}"
    if status:
        return "" if Path(name).name in line or Path(name).parent.name in line else f"does not name it: {line}"
    return "" if sound(checkout) else "other results"


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", COMMANDS)
def test_an_altered_file_of_a_run_is_named_or_changes_nothing(checkouts, seed, name) -> None:
    """Files of a run are sealed; journals and caches are made again."""
    begun = checkouts.new("predict")
    for argv, _ in COMMANDS.values():
        assert checkouts.call(argv, begun)[0] == 0
    argv, answer = COMMANDS[name]
    expected = (begun / answer).read_bytes()
    files = [one for one in files_of(begun, "output/lmsys/s", "submissions/written", "cache") if ".ckpt" not in one]
    faults = {}
    for file, harm in chosen(files, f"{seed} {name}"):
        harm((checkout := checkouts.copy(begun)) / file)
        case = f"{harm.__name__} {file}"
        faults[case] = fault_of(checkouts, checkout, argv, case, lambda one: (one / answer).read_bytes() == expected)
        checkouts.remove(checkout)
    assert not (found := {case: fault for case, fault in faults.items() if fault}), (seed, found)


@pytest.mark.timeout(3600)
def test_an_altered_file_of_an_unfinished_training_is_named_or_made_again(checkouts, seed) -> None:
    whole, begun = checkouts.new("train"), checkouts.new("train")
    assert checkouts.call(SCENES["train"].argv, whole)[0] == 0
    assert checkouts.call(SCENES["train"].argv, begun, fault=(KILL_AFTER, 480))[0] < 0
    expected = results(whole)
    files = [one for one in files_of(begun, "output", "cache") if "/." not in one]
    faults = {}
    for file, harm in chosen(files, f"{seed} train"):
        harm((checkout := checkouts.copy(begun)) / file)
        case = f"{harm.__name__} {file}"
        faults[case] = fault_of(
            checkouts, checkout, SCENES["train"].argv, case, lambda one: not difference(results(one), expected)
        )
        checkouts.remove(checkout)
    assert not (found := {case: fault for case, fault in faults.items() if fault}), (seed, found)


def chosen(files: Sequence[str], seed: str) -> list[tuple[str, Callable[[Path], None]]]:
    """All cases of the long form, of the short one a few. Lines of journals and caches have no checksums of a bit."""
    unsealed = ("submissions/written/", "cache/")
    cases = [(file, harm) for file in files for harm in HARMS if harm != flip or not file.startswith(unsealed)]
    return cases if IS_LONG else random.Random(seed).sample(cases, KILLS // 5)
