"""Checkouts in which the commands of a page are run, with the data and the runs that these need."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from documented.stand_ins import link_environment, link_shared, make_inputs, make_small, save_small_model
from nexttoken.models.named_weights import NAMED
from support.fork_server import ForkServer
from support.pages import ROOT

LINKED = ("src", "docs", "tests", "Makefile", "pyproject.toml", "README.md")
COPIED = ("train.py", "predict.py", "conf", "samples", "benchmarks")
# Runs for the placeholders of a page; each is trained once. No command of a page has their weight decay: a sweep would
# go on in a run that has its settings.
TRAIN = "python train.py -m fold=0,1 fit.weight_decay=0.03"
RUNS = {
    "lmsys/trained": f"{TRAIN} name=trained",
    "lmsys/other": f"{TRAIN} name=other transforms=counts prompt=instruction_counts",
    "lmsys/a": f"{TRAIN} name=a model=smollm2 adapter=lora",
    "lmsys/a_seed-1": f"{TRAIN} name=a_seed-1 seed=1 model=smollm2 adapter=lora",
    "quiz/trained": f"{TRAIN} name=trained task=quiz inference=gated_retrieval retriever=bm25",
    "instruct/trained": f"{TRAIN} name=trained task=instruct",
    "dialogue/trained": f"{TRAIN} name=trained task=dialogue",
    "dialogue/other": f"{TRAIN} name=other task=dialogue train_transforms=windows_all_2",
    "marks/trained": f"{TRAIN} name=trained task=marks",
    # With answers to every row, from which another run takes its candidates.
    "eedi/trained": "python train.py -m fold=0,1,2,3,4 name=trained task=eedi retriever=bm25 candidates.number=25"
    " trainer.max_epochs=0 limit_rows=200",
    "jmmlu/trained": f"{TRAIN} name=trained task=jmmlu input_dir=../shared/data/jmmlu",
    "jcommonsenseqa/trained": f"{TRAIN} name=trained task=jcommonsenseqa input_dir=input/jcommonsenseqa",
}


class Workplace:
    """A folder for checkouts, with a server of commands; checkouts share its data, its cache and its trained runs."""

    def __init__(self, root: Path, server: ForkServer) -> None:
        self.root, self.server = root, server
        self.cache = root / "cache"
        self.environment = {"NEXTTOKEN_CACHE": str(self.cache), "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
        save_small_model(self.cache / "weights" / f"smollm2-{NAMED['smollm2'].version}")
        make_inputs(root / "input", root / "shared" / "data")
        self.runs = self.checkout("runs")

    def checkout(self, name: str) -> "Checkout":
        """The checkout of a page, in which trainings are small where the command line does not say otherwise."""
        folder = self.root / name
        if folder.exists():
            return Checkout(folder, self)
        folder.mkdir()
        for path in [*(ROOT / linked for linked in LINKED), *ROOT.glob("*.lock")]:
            (folder / path.name).symlink_to(path)
        for copied in COPIED:
            path = ROOT / copied
            shutil.copytree(path, folder / copied) if path.is_dir() else shutil.copy(path, folder)
        make_small(folder / "conf")
        (folder / "rubric.txt").write_text("A good answer is right, and as short as it can be.\n")
        link_environment(folder / ".venv")
        shutil.copytree(self.root / "input", folder / "input", symlinks=True)
        return Checkout(folder, self)

    def link_shared(self, shared: Path) -> None:
        """Have the real data beside the checkouts."""
        if not (self.root / "shared").exists():
            link_shared(self.root / "shared", shared)

    def trained(self, name: str) -> Path:
        """The folder of a run of RUNS, which is trained where it is not there yet."""
        run = self.runs.folder / "output" / name
        if not run.exists():
            status, words = self.runs.call(RUNS[name])
            assert status == 0, words
        return run


class Checkout:
    """A folder in which the commands of a page are run, one after the other."""

    def __init__(self, folder: Path, workplace: Workplace) -> None:
        self.folder, self.workplace = folder, workplace

    def prepare(self, text: str) -> None:
        """Bring the runs that a command names, and take away what it would not write twice."""
        named = re.findall(r"output/(\w+/[\w-]+)", text)
        for task in re.findall(r"output/(\w+)(?=/\*|\s|$)", text):  # all runs of a task
            named += [] if (self.folder / "output" / task).exists() else [f"{task}/trained", f"{task}/other"]
        needs_submission = "submissions/answers.csv" in text and not (self.folder / "submissions/answers.csv").exists()
        named += ["lmsys/trained"] if needs_submission else []
        for name in named:
            if name in RUNS and not (self.folder / "output" / name).exists():
                shutil.copytree(self.workplace.trained(name), self.folder / "output" / name)
        if needs_submission:
            self.call("python predict.py run=output/lmsys/trained name=answers")
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
