"""A kernel folder from finished runs: the data set, the notebook and the metadata, whole or not at all."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nexttoken.commands.kaggle import SLUGS
from nexttoken.commands.kernel_folder.files import DATA_SET, FlatFiles, add_code, write_manifest
from nexttoken.commands.kernel_folder.notebook import title_of, write_metadata, write_notebook
from nexttoken.commands.kernel_folder.packages import (
    add_wheel,
    here,
    missing_packages,
    needed_packages,
    read_image,
)
from nexttoken.commands.kernel_folder.packed_runs import PackedRuns
from nexttoken.data.targets import check_targets, make
from nexttoken.data.whole_files import scratch_folder, whole_folder
from nexttoken.errors import UserError
from nexttoken.runs.folder import RunFolder
from nexttoken.settings import ALL

LOCAL = ("Recorded", "BM25")  # retrievers without network and without a further model
RECORD = "record its passages (docs/retrieval.md), then add passages=<file>"
NOTHING = (".Nothing", "None")  # ends the `_target_` of a retriever that finds nothing, or is none
PASSAGES = "passages.jsonl"
CHECKOUT = Path(__file__).parents[4]


def retrievers(node: Any) -> Iterator[Mapping[str, Any]]:
    """The retrievers at any depth of a configuration."""
    for key, value in node.items() if isinstance(node, Mapping) else ():
        if key == "retriever" and isinstance(value, Mapping) and not str(value.get("_target_")).endswith(NOTHING):
            yield value
        yield from retrievers(value)


def add_searched(flat: FlatFiles, config: Mapping[str, Any], passages: Path | None) -> list[str]:
    """Add recorded passages and corpora at their places below the competition's files.

    Returns the arguments of predict.py by which given `passages` are used. Raises UserError for a search that needs the
    network or another model, and for files that are elsewhere.
    """
    used = [one for key in ("inference", "candidates") for one in retrievers(config.get(key))]
    if passages is not None:
        if not used:
            raise UserError("the run does not search, so passages= has no use; leave it out")
        if not passages.is_file():
            raise UserError(f"{passages} is no file; expected recorded passages, as docs/retrieval.md describes them")
        if PASSAGES not in flat.places.values():
            flat.add(passages, PASSAGES)
        return ["retriever=recorded", f"retriever.path={{folder}}/{PASSAGES}"]
    for node in used:
        kind = str(node["_target_"]).rpartition(".")[2]
        if kind not in LOCAL:
            raise UserError(f"the run searches by {kind}, which a kernel cannot; {RECORD}")
        for path in (Path(str(node[key])) for key in ("path", "corpus") if node.get(key)):
            _add_input(flat, path, Path(str(config["input_dir"])))
    return []


def _add_input(flat: FlatFiles, path: Path, input_dir: Path) -> None:
    if not path.exists():
        raise UserError(f"{path}, which the run searches, is not there; put it back, or add passages=<file>")
    if not path.resolve().is_relative_to(input_dir.resolve()):
        raise UserError(f"{path}, which the run searches, is not in {input_dir}; {RECORD}")
    place = f"input/{path.resolve().relative_to(input_dir.resolve()).as_posix()}"
    if not any(f"{one}/".startswith(f"{place}/") for one in flat.places.values()):
        flat.add(path, place)


@dataclass(frozen=True)
class Plan:
    """A kernel folder to be written: where, under which name, for which machine, time limit and competition."""

    out: Path
    identity: str
    machine_shape: str
    device: str
    within: str
    competition: str | None
    cascade: tuple[Path, float | None] | None = None  # the larger run of a cascade, and its share

    @property
    def data_set(self) -> str:
        return f"{self.identity}-files"


def build_kernel(
    plan: Plan, run: str, base: str | None, image: Path | None, passages: Path | None, fold: int | str | None
) -> Iterator[str]:
    """Write the folder and yield lines that say what is in it.

    Raises UserError for an unfinished or altered run, for a base or package that is not there, and for a search that
    needs the network.
    """
    holds = read_image(image)
    with whole_folder(plan.out) as kernel:
        folder = kernel / DATA_SET
        folder.mkdir()
        packed = PackedRuns(FlatFiles(folder), base, fold)
        with scratch_folder(plan.out.with_name("blend")) as scratch:
            place = packed.add(averaged(run.split(","), scratch) if plan.cascade is None else RunFolder(Path(run)))
        task = task_of_run(packed)
        competition = plan.competition or SLUGS.get(task.name)
        if competition is None:
            what = f"the task {task.name} names no competition"
            raise UserError(
                f"{what}; add competition=<its name in its address>, or owner/name of a data set with its files"
            )
        arguments = [] if plan.cascade is None else add_cascade(packed, Path(run), *plan.cascade)
        arguments += [f"fold={fold}"] * (fold == ALL) + ["base={folder}/bases"] * bool(packed.bases)
        for config in packed.configs:
            arguments += [one for one in add_searched(packed.flat, config, passages) if one not in arguments]
        needed = needed_packages(packed.configs, packed.has_baselines)
        lines = "\n".join(f"{name}{wanted}" for name, wanted in sorted(needed.items()))
        (folder / "requirements.txt").write_text(f"{lines}\n", encoding="utf-8")
        wheels = [add_wheel(one, folder, python_of(holds)) for one in missing_packages(needed, holds)]
        add_code(folder, CHECKOUT)
        write_notebook(kernel, plan.data_set, title_of(plan.identity), plan.within)
        models = [source for source in packed.bases.values() if source]
        write_metadata(kernel, plan.identity, plan.data_set, plan.machine_shape, competition, models)
        kind = {"has_labels": bool(task.classes), "has_check": hasattr(task, "check"), "suffix": task.suffix}
        known = {"run": place, "task": task.name, "competition": competition, "bases": packed.bases}
        limits = {"arguments": arguments, "device": plan.device, "within": plan.within}
        write_manifest(kernel, packed.flat, {**known, **kind, **limits})
        sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
    shown = (f"{packed.flat.places.get(name, name)} {in_units(sizes[name])}" for name in largest)
    yield f"{plan.out}: {len(sizes)} files, {in_units(sum(sizes.values()))}, for the data set {plan.data_set}"
    yield f"largest: {', '.join(shown)}"
    yield f"wheels: {', '.join(wheel.name for wheel in wheels) or 'none, the image holds all that the run needs'}"
    for name, source in packed.bases.items():
        yield f"base model {name}: {source or 'copied into the data set'}"


def add_cascade(packed: PackedRuns, small: Path, larger: Path, share: float | None) -> list[str]:
    """Add the larger run of a cascade; return the arguments of predict.py. Raises UserError as `Pair.read`."""
    from nexttoken.runs.cascade import Pair

    Pair.read(small, larger)
    given = [] if share is None else [f"cascade_share={share:g}"]
    return [f"cascade={{folder}}/{packed.add(RunFolder(larger))}", *given]


def averaged(runs: list[str], scratch: Path) -> RunFolder:
    """The run, with its replicas as predict.py averages them; of several runs their blend with equal weights."""
    from nexttoken.runs.blend_fit import Members
    from nexttoken.runs.blend_folder import write_blend
    from nexttoken.runs.replicas import average_replicas

    folders = [RunFolder(Path(one.strip()).expanduser()) for one in runs if one.strip()]
    for folder in folders:
        if not folder.has_only_final:
            folder.finished_folds()  # or it is refused
    if len(folders) == 1:
        return average_replicas(folders[0])
    members, place = Members.read([str(folder.path) for folder in folders]), scratch / "average"
    blend = members.blend("probabilities", False, place)
    write_blend(blend, members.blended("probabilities", False), members.runs, place)
    return RunFolder(place)


def task_of_run(packed: PackedRuns) -> Any:
    """The task of the runs, as the first has it."""
    node = packed.configs[0]["task"]
    check_targets({"task": node})
    return make(node, "task")


def python_of(image: dict[str, str]) -> str:
    """The image's Python, such as "3.11"; this machine's where its list does not say."""
    return ".".join(image.get("python", here()).split(".")[:2])


def in_units(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.1f} MiB"
