"""Commands that chaos tests disturb, each in a small checkout of its own, and their results in comparable form."""

import csv
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.fork_server import REPOSITORY
from support.training import write_sample

KILLS = int(os.environ.get("NEXTTOKEN_CHAOS_KILLS", 60))  # of all scenes together
IS_LONG = KILLS > 200
TINY = (
    *("limit_rows=20", "max_tokens=128", "trainer.max_epochs=2", "fit.batch_size=4", "fit.checkpoint_steps=2"),
    *("model.scratch.hidden_size=32", "model.scratch.num_layers=1", "model.scratch.dropout=0.1", "logger=none"),
)
TEXTS = ("task=instruct", "input_dir=input/sample-instruct", "generation.max_new_tokens=8", "generate_rows=6")
LARGER = ("limit_rows=80", "trainer.max_epochs=8", "fit.batch_size=8", "fit.learning_rate=0.02", "split.dev_fraction=0")
# And what depends on the state of the checkout: the commit that a fold was made with.
SPEEDS = {"made_with", "train_seconds", "seconds", "rows_per_second", "train_rows_per_second", "peak_memory_mb", "time"}
HASHES_OF_TIMES = {"metrics.json", "rows.csv", "answered_by"}  # the former two in a seal


QUIZ = ("task=quiz", "input_dir=input/sample-quiz", "inference=retrieval", "retriever=bm25")


@dataclass(frozen=True)
class Scene:
    """A command, and the scenes that come before it."""

    argv: tuple[str, ...]
    after: tuple[str, ...] = ()
    refuses_twice: bool = False  # an error where its result is there already
    is_slow: bool = False

    def refuses(self, words: str) -> bool:
        """True where the command says that its result is there already."""
        return self.refuses_twice and "exists already" in words


def train(*overrides: str) -> tuple[str, ...]:
    given = [one.partition("=")[0] for one in overrides]
    return ("train.py", *overrides, *(one for one in TINY if one.partition("=")[0] not in given))


def command(*arguments: str) -> tuple[str, ...]:
    return ("-m", "nexttoken", *arguments)


PROBE = ("head=probe", "head.context_tokens=96", "head.answer_tokens=24")
LORA = ("model.name_or_path=output/lmsys/s/fold0/model", "adapter=lora", "adapter.r=4")
PREPARATIONS = {"overconfident": Scene(train("-m", "fold=0,1,2", "name=l", *LARGER))}
SCENES = {
    "train": Scene(train("fold=0", "name=x")),
    "debug": Scene(("train.py", "fold=0", "name=d", "debug=fast", "limit_rows=20", *TINY[1:2], *TINY[4:7])),
    "zero-shot": Scene(train("fold=0", "name=z", "trainer.max_epochs=0")),
    "texts": Scene(train("fold=0", "name=t", *TEXTS)),
    "quiz": Scene(train("fold=0", "name=q", *QUIZ)),
    "sweep": Scene(train("-m", "fold=0,1", "name=s")),
    "other fold": Scene(train("fold=1", "name=x"), ("train",)),
    "adapter": Scene(train("fold=0", "name=a", *LORA), ("sweep",)),
    "probe": Scene(train("fold=0", "name=p", LORA[0], *PROBE), ("sweep",)),
    "predict": Scene(("predict.py", "run=output/lmsys/s", "batch_tokens=256"), ("sweep",)),
    "within": Scene(("predict.py", "run=output/lmsys/s", "batch_tokens=256", "within=5m"), ("sweep",)),
    "predict texts": Scene(("predict.py", "run=output/instruct/t", "batch_tokens=256"), ("texts",)),
    "calibrate": Scene(command("calibrate", "run=output/lmsys/l"), ("overconfident",)),
    "blend": Scene(command("blend", "runs=output/lmsys/l,baseline", "name=b"), ("overconfident",), True),
    "ask": Scene(command("ask", "run=output/lmsys/s", "inference=swap_averaged"), ("sweep",)),
    "merge": Scene(command("merge", "run=output/lmsys/a", "fold=0", "out=output/merged"), ("sweep", "adapter"), True),
    "convert": Scene(command("convert", "from=input/sample-quiz/train.jsonl", "to=instruction", "out=output/q.json")),
    "report": Scene(command("report", "output/lmsys"), ("sweep",)),
    "kernel": Scene(command("kernel", "run=output/lmsys/s", "out=kernel", "id=someone/a-kernel"), ("sweep",), True),
    "rehearse": Scene(command("kernel", "rehearse", "kernel", "rows=50"), ("sweep", "kernel"), is_slow=True),
}
QUICK = [name for name, scene in SCENES.items() if not scene.is_slow]

# Checkpoints hold times, and so do the names of a prediction's journals. Nothing reads multirun.yaml, nor the journals
# of a finished fold, which a kill after its last file leaves.
SKIPPED = (".lock", ".ckpt", "multirun.yaml")
SKIPPED_FOLDERS = {"tensorboard", "written", "answered"}


class Checkouts:
    """Makes folders in which a scene can begin, by running what comes before it once."""

    def __init__(self, root: Path, server: Any) -> None:
        self.root, self.server, self.number = root, server, 0
        self.inputs = root / "input"
        self.inputs.mkdir()
        write_sample(self.inputs / "sample-preferences")
        for name in ("sample-instruct", "sample-quiz"):
            (self.inputs / name).symlink_to(REPOSITORY / "input" / name)

    def new(self, scene: str) -> Path:
        """A folder with the results of all that comes before the scene."""
        begun = self.root / f"before {'+'.join(SCENES[scene].after)}"
        if not begun.exists():
            begun.mkdir()
            for name in ("train.py", "predict.py", "conf"):
                (begun / name).symlink_to(REPOSITORY / name)
            (begun / "input").symlink_to(self.inputs)
            for earlier in SCENES[scene].after:
                status, words = self.call((PREPARATIONS | SCENES)[earlier].argv, begun)
                assert status == 0, words
        return self.copy(begun)

    def copy(self, checkout: Path) -> Path:
        self.number += 1
        return Path(shutil.copytree(checkout, self.root / f"{self.number}", symlinks=True))

    def begin(self, argv: Sequence[str], checkout: Path, fault: Sequence[Any] = ()) -> int:
        """Start a command with a `fault`: its kind, number of the change, and error or time (plan_fault in faults.c).

        The output goes to the file `words`, and the changes of the file system to `changes`.
        """
        (checkout / "words").write_text("")  # the command may be killed before it can make them
        (checkout / "changes").unlink(missing_ok=True)
        if fault:
            fault = (f"{checkout}/", str(checkout / "changes"), *fault, *[0] * (3 - len(fault)))
        cache = str(checkout / "cache")
        return self.server.start(argv, checkout, checkout / "words", fault, NEXTTOKEN_CACHE=cache)

    def call(self, argv: Sequence[str], checkout: Path, fault: Sequence[Any] = ()) -> tuple[int, str]:
        """The exit status and the output of a command."""
        self.begin(argv, checkout, fault)
        status = self.server.wait()
        return status, (checkout / "words").read_text(errors="replace")

    def changes(self, checkout: Path) -> list[str]:
        """The changes of the file system by the last command, which was started with a fault: `<call> <path>`."""
        return (checkout / "changes").read_text().splitlines()

    def remove(self, checkout: Path) -> None:
        shutil.rmtree(checkout)


def results(checkout: Path) -> dict[str, Any]:
    """The files that a command has written, by path: bytes, or the values of a file that holds times."""
    found: dict[str, Any] = {"answers": answers(checkout / "submissions" / "written")}
    for folder in ("output", "submissions", "kernel"):
        for path in sorted((checkout / folder).rglob("*")):
            name = path.relative_to(checkout).as_posix()
            if path.is_file() and not name.endswith(SKIPPED) and not SKIPPED_FOLDERS & {*path.parts}:
                found[name] = comparable(path)
    return found


def answers(folder: Path) -> list[str]:
    """The lines of a prediction's journals, without the first one, which names the training."""
    lines = [line for path in folder.rglob("*.jsonl") for line in path.read_text().splitlines()[1:]]
    return sorted(json.dumps(without_times(json.loads(line))) for line in lines)


def comparable(path: Path) -> Any:
    if path.suffix == ".json":
        return without_times(json.loads(path.read_text()))
    if path.name in ("rows.csv", "ledger.csv"):
        with path.open(newline="") as file:
            return [without_times(row) for row in csv.DictReader(file)]
    return path.read_bytes()


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(one) for key, one in value.items() if key not in SPEEDS | HASHES_OF_TIMES}
    return [without_times(one) for one in value] if isinstance(value, list) else value


def difference(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """The paths that one side lacks or that differ."""
    return sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))


def litter(checkout: Path) -> list[str]:
    """Hidden files of killed processes. The lock of the ledger stays; that of a finished fold holds nobody up."""
    hidden = [path for folder in ("output", "submissions", "kernel") for path in (checkout / folder).rglob(".*")]
    return [str(path) for path in hidden if path.name != ".ledger.csv.lock" and not is_of_finished_fold(path)]


def is_of_finished_fold(lock: Path) -> bool:
    return (lock.with_name(lock.stem.removeprefix(".")) / "metrics.json").exists()
