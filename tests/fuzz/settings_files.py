"""Settings from strangers: overrides of a command line, arguments of commands, YAML files, and a run's config.yaml."""

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import chdir
from importlib import import_module
from pathlib import Path

from fuzz.rule import obey
from fuzz.target import Target, file_target
from nexttoken.__main__ import commands
from nexttoken.build import prepare
from nexttoken.commands.arguments import Arguments
from nexttoken.commands.entry import compose
from nexttoken.errors import UserError
from nexttoken.runs.folder import RunFolder
from nexttoken.runs.loaded import LoadedRun
from support.composed import CONF, composed
from support.finished_runs import unseal, write_finished_fold

REPOSITORY = CONF.parent
COMMAND_LINES = (
    "fold=0",
    "task=quiz\nretriever=bm25\ninference=gated_retrieval\nfold=1",
    "model=smollm2\nadapter=lora\nadapter.r=8\nquantization=nf4\nmax_tokens=auto",
    "task=instruct\nprompt=instruct\ngenerate_rows=4\ngeneration.max_new_tokens=9",
    "prompt.user='{{ prompt[0] }}'\nprompt.labels=[A,B,tie]\n+trainer.deterministic=true\n~debug",
    "task=table\ntask.fields=[text]\ntask.classes=[x,'y z']\ntask.label=label\nname='a b'",
    "experiment=sample_quiz\nseed=3\nwithin=2h30m\nlogger=none\noutput_dir=${input_dir}/x",
    "input_dir=${oc.env:HOME}\nseed=${fold}\nfit={learning_rate:1e-3}\n++search.num_passages=0x3",
)
RUNS = (
    ("task=lmsys",),
    ("task=quiz", "inference=few_shot"),
    ("task=instruct",),
    ("model=smollm2", "adapter=lora", "quantization=nf4"),
    ("task=map", "input_dir=input/sample-map"),
)
GROUPS = ("task/lmsys", "task/wsdm", "prompt/fields", "model/smollm2_135m", "experiment/sample_answers", "fit/lora")


def overrides(_: Path) -> Target:
    """Each line is an override of train.py."""

    def one_input(data: bytes) -> bool:
        given = arguments_of(data)
        with chdir(REPOSITORY):
            return obey(lambda: prepare(compose("train", given), given), refused_by=(UserError, OSError))

    return Target(one_input, tuple(line.encode() for line in COMMAND_LINES))


def arguments(_: Path) -> Target:
    """The first byte chooses the command, each line is one of its arguments."""
    for command in commands():
        import_module(f"nexttoken.commands.{command}")
    kinds = sorted(all_below(Arguments), key=lambda kind: kind.__name__)

    def one_input(data: bytes) -> bool:
        kind = kinds[(data[0] if data else 0) % len(kinds)]
        return obey(lambda: kind.parse(arguments_of(data[1:])), refused_by=(UserError, OSError))

    return Target(
        one_input, tuple(bytes([place]) + sound_arguments(kind) for place, kind in enumerate(kinds)), num_kept=1
    )


def sound_arguments(kind: type[Arguments]) -> bytes:
    """The required arguments of a command; a path where it requires none."""
    fields = kind.model_fields.items()
    required = {info.alias or name: (info.examples or ["12h"])[0] for name, info in fields if info.is_required()}
    required = required or ({"paths": "."} if "paths" in kind.model_fields else {})
    lines = [value if key == "paths" else f"{key}={value}" for key, value in required.items()]
    return "\n".join(lines).encode()


def all_below(kind: type[Arguments]) -> list[type[Arguments]]:
    own = kind.__subclasses__()
    return [*own, *(inner for one in own for inner in all_below(one))]


def arguments_of(data: bytes) -> list[str]:
    """The arguments as Python reads them from a system that passes bytes without NUL."""
    return [os.fsdecode(line) for line in data.replace(b"\0", b"").split(b"\n") if line]


def yaml_files(folder: Path) -> Target:
    """Files of conf/ that people write themselves, as `task=mine` and `experiment=mine` name them."""
    shutil.copytree(CONF, folder / "conf")
    shutil.copy(REPOSITORY / "train.py", folder)
    readers = []
    for name in GROUPS:
        path = folder / "conf" / name.partition("/")[0] / "mine.yaml"
        path = path.with_name(f"mine_{name.partition('/')[2]}.yaml")
        shutil.copy(folder / "conf" / f"{name}.yaml", path)
        readers.append((path, lambda path: composed_in(folder, [f"{path.parent.name}={path.stem}"])))
    return file_target(readers, says_name=False)  # it is the command line that names the file


def composed_in(folder: Path, given: Sequence[str]) -> object:
    with chdir(folder):
        return prepare(compose("train", given), given)


def run_settings(folder: Path) -> Target:
    """The config.yaml of a finished fold, whose settings are edited."""
    readers = []
    for number, choices in enumerate(RUNS):
        fold = write_finished_fold(folder / f"run{number}")
        config = composed(*choices) | {"name": "x", "fold": 0}
        (fold / "config.yaml").write_text(json.dumps(config, indent=1), encoding="utf-8")  # JSON is YAML
        unseal(fold)
        readers.append((fold / "config.yaml", lambda path: LoadedRun.load(RunFolder(path.parent.parent))))
    return file_target(readers, says_name=False)
