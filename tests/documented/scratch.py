"""Checkouts in which the commands of a page are run, with the data and the runs that these need."""

import csv
import os
import re
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path

from conftest import CHAT_TEMPLATE, save_small_base
from nexttoken.data.files import read_json, write_json
from nexttoken.models.named_weights import NAMED
from support.fork_server import ForkServer
from support.training import write_sample

ROOT = Path(__file__).resolve().parents[2]
SMALL = Path(__file__).with_name("small.yaml")
LINKED = (
    "src",
    "docs",
    "tests",
    "Makefile",
    "pyproject.toml",
    "README.md",
    *(path.name for path in ROOT.glob("*.lock")),
)
COPIED = ("train.py", "predict.py", "conf", "samples", "benchmarks")
# The samples that stand for data which a reader has downloaded, in the same format.
STAND_INS = {
    "lmsys-chatbot-arena": "sample-preferences",
    "other": "sample-preferences",
    "quiz": "sample-quiz",
    "instruct": "sample-instruct",
    "dialogues": "sample-dialogue",
    "my-marks": "sample-marks",
    "map": "sample-map",
    "map-charting-student-math-misunderstandings": "sample-map",
    "jigsaw-agile-community-rules": "sample-jigsaw-rules",
}
NUM_ROWS = (40, 400)  # of the test and the train table of real judgements
TRAIN = "python train.py -m fold=0,1 "
# Runs for the placeholders of a page; each is trained once.
RUNS = {
    "lmsys/trained": f"{TRAIN} name=trained",
    "lmsys/other": f"{TRAIN} name=other transforms=counts prompt=instruction_counts",
    "lmsys/adapter": f"{TRAIN} name=adapter model=smollm2 adapter=lora",
    "lmsys/a": f"{TRAIN} name=a model=smollm2 adapter=lora",
    "lmsys/a_seed-1": f"{TRAIN} name=a_seed-1 seed=1 model=smollm2 adapter=lora",
    "quiz/trained": f"{TRAIN} name=trained task=quiz inference=gated_retrieval retriever=bm25",
    "instruct/trained": f"{TRAIN} name=trained task=instruct",
    "dialogue/trained": f"{TRAIN} name=trained task=dialogue",
    "dialogue/other": f"{TRAIN} name=other task=dialogue train_transforms=windows_all_2",
    "marks/trained": f"{TRAIN} name=trained task=marks",
    "eedi/trained": f"{TRAIN} name=trained task=eedi retriever=bm25 candidates.number=25",
    "jmmlu/trained": f"{TRAIN} name=trained task=jmmlu input_dir=../shared/data/jmmlu",
    "jcommonsenseqa/trained": f"{TRAIN} name=trained task=jcommonsenseqa input_dir=input/jcommonsenseqa",
}


class Workplace:
    """A folder for checkouts, with a server of commands; checkouts share its data, its cache and its trained runs."""

    def __init__(self, root: Path, server: ForkServer) -> None:
        self.root, self.server = root, server
        self.cache = root / "cache"
        self.environment = {"NEXTTOKEN_CACHE": str(self.cache), "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
        _save_stand_in(self.cache / "weights" / f"smollm2-{NAMED['smollm2'].version}")
        self._make_inputs()
        self.runs = self.checkout("runs")

    def checkout(self, name: str) -> "Checkout":
        """The checkout of a page, in which trainings are small where the command line does not say otherwise."""
        folder = self.root / name
        if folder.exists():
            return Checkout(folder, self)
        folder.mkdir()
        for linked in LINKED:
            (folder / linked).symlink_to(ROOT / linked)
        for copied in COPIED:
            path = ROOT / copied
            shutil.copytree(path, folder / copied) if path.is_dir() else shutil.copy(path, folder)
        _make_small(folder / "conf")
        (folder / "rubric.txt").write_text("A good answer is right, and as short as it can be.\n")
        _link_environment(folder / ".venv")
        shutil.copytree(self.root / "input", folder / "input", symlinks=True)
        return Checkout(folder, self)

    def link_shared(self, shared: Path) -> None:
        """Have the real data beside the checkouts, with the first rows only of the judgements that most pages use."""
        if (self.root / "shared").exists():
            return
        data = self.root / "shared" / "data"
        data.mkdir(parents=True)
        for path in [*shared.iterdir(), *(shared / "data").iterdir()]:
            if path.name not in ("data", "arena-mini"):
                (self.root / "shared" / path.relative_to(shared)).symlink_to(path)
        (data / "arena-mini").mkdir()
        for path in (shared / "data" / "arena-mini").iterdir():
            _copy_rows(path, data / "arena-mini", NUM_ROWS["train" in path.name])

    def trained(self, name: str) -> Path:
        """The folder of a run of RUNS, which is trained where it is not there yet."""
        run = self.runs.folder / "output" / name
        if not run.exists():
            status, words = self.runs.call(RUNS[name])
            assert status == 0, words
        return run

    def _make_inputs(self) -> None:
        inputs = self.root / "input"
        inputs.mkdir()
        for path in sorted((ROOT / "input").glob("sample-*")):
            shutil.copytree(path, inputs / path.name)
        shutil.rmtree(inputs / "sample-preferences")
        write_sample(inputs / "sample-preferences")
        for name, sample in STAND_INS.items():
            shutil.copytree(inputs / sample, inputs / name)
        for name in ("jcommonsenseqa", "jmmlu"):
            (inputs / name).symlink_to(self.root / "shared" / "data" / name)
        _write_table(inputs / "mine")


class Checkout:
    """A folder in which the commands of a page are run, one after the other."""

    def __init__(self, folder: Path, workplace: Workplace) -> None:
        self.folder, self.workplace = folder, workplace

    def prepare(self, text: str) -> None:
        """Bring the runs that a command names, and take away what it would not write twice."""
        named = re.findall(r"output/(\w+/[\w-]+)", text)
        for task in re.findall(r"output/(\w+)(?=/\*|\s|$)", text):  # all runs of a task
            named += [] if (self.folder / "output" / task).exists() else [f"{task}/trained", f"{task}/other"]
        if "submissions/trained.csv" in text:
            named.append("lmsys/trained")
        for name in named:
            if name in RUNS and not (self.folder / "output" / name).exists():
                shutil.copytree(self.workplace.trained(name), self.folder / "output" / name)
        if "submissions/trained.csv" in text and not (self.folder / "submissions" / "trained.csv").exists():
            self.call("python predict.py run=output/lmsys/trained")
        for name in re.findall(r"\bout=(\S+)", text):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def call(self, text: str, variables: str = "") -> tuple[int, str]:
        """The exit status and the output of a command line."""
        out = self.folder / "words"
        out.unlink(missing_ok=True)
        if re.match(r"python ((train|predict)\.py|-m nexttoken)\b", text):
            status = self._fork(self._words(f"{variables}\n", text.removeprefix("python ")), out)
        else:
            with out.open("w") as file:
                status = self._shell(text, stdout=file, stderr=subprocess.STDOUT).returncode
        return status, out.read_text(errors="replace")

    def _words(self, variables: str, text: str) -> list[str]:
        """The words of a command as the shell expands them."""
        done = self._shell(f"{variables}printf '%s\\0' {text}", stdout=subprocess.PIPE)
        return done.stdout.decode().split("\0")[:-1]

    def _fork(self, argv: list[str], out: Path) -> int:
        server = self.workplace.server
        process = server.start(argv, self.folder, out, **self.workplace.environment)
        try:
            return server.wait()
        except BaseException:  # such as the time limit of a test
            os.killpg(process, 9)
            server.wait()
            raise

    def _shell(self, text: str, **streams: object) -> subprocess.CompletedProcess:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {**os.environ, **self.workplace.environment, "PATH": path}
        return subprocess.run(
            ["bash", "-c", text], cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, check=False, **streams
        )


def _copy_rows(path: Path, folder: Path, number: int) -> None:
    """Copy the first rows of a table."""
    with path.open(newline="", encoding="utf-8") as whole, (folder / path.name).open("w", newline="") as part:
        csv.writer(part).writerows(islice(csv.reader(whole), number + 1))


def _make_small(conf: Path) -> None:
    """Have trainings take few rows, and the grids and searches of conf/ two values or trials."""
    shutil.copy(SMALL, conf)
    train = conf / "train.yaml"
    train.write_text(train.read_text().replace("  - override hydra/job", "  - small\n  - override hydra/job", 1))
    model = conf / "model" / "smollm2.yaml"
    model.write_text(model.read_text().replace("max_tokens: 2048", "max_tokens: 256"))  # what the stand-in can take
    for path in [*conf.glob("sweep/*.yaml"), *conf.glob("experiment/*.yaml")]:
        text = re.sub(r"\btrials: \d+", "trials: 2", path.read_text())
        text = re.sub(r"folds: \[0, 1, [^]]*\]", "folds: [0, 1]", text)
        path.write_text(re.sub(r"(: )([^,\s\[({]+,[^,\s]+)(,[^,\s]+)+$", r"\1\2", text, flags=re.M))


def _link_environment(folder: Path) -> None:
    """Have make find this Python's packages installed."""
    folder.mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (folder / name).symlink_to(Path(sys.prefix) / name)
    for installed in (".run", ".test"):
        (folder / installed).touch()


def _save_stand_in(folder: Path) -> None:
    """Save a small model with a chat template in the place of pretrained weights."""
    folder.parent.mkdir(parents=True)
    save_small_base(folder)
    settings = folder / "tokenizer_config.json"
    write_json(read_json(settings) | {"chat_template": CHAT_TEMPLATE}, settings)


def _write_table(folder: Path) -> None:
    """Write a small table of texts with two classes."""
    folder.mkdir()
    kinds = ("delivery", "refund")
    rows = [(n, f"title {n}", f"about my {kinds[n % 2]} of day {n * 7919 % 1000}", kinds[n % 2]) for n in range(90)]
    for name, part in (("train", rows[:60]), ("test", [row[:3] for row in rows[60:]])):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("row_id", "title", "text", "kind")[: len(part[0])], *part])
    with (folder / "sample_submission.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("row_id", "kind"), *((row[0], kinds[0]) for row in rows[60:])])
