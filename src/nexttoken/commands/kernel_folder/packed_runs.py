"""The files of finished runs that a prediction needs, with those of their base models, for a kernel's data set."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nexttoken.commands.kernel_folder.files import FlatFiles
from nexttoken.data.whole_files import scratch_folder
from nexttoken.errors import UserError
from nexttoken.runs import calibration, seals
from nexttoken.runs.blend import FILE, Blend, is_blend, member_folder, read_blend, save_blend
from nexttoken.runs.folder import FoldFolder, RunFolder
from nexttoken.settings import ALL

FOLD_FILES = (*seals.RECORDS, *seals.WEIGHTS, "metrics.json")  # no checkpoints, logs, curves and prompts
RUN_FILES = ("folds.csv", "gate.json", calibration.FILE)
MODEL_SOURCE = re.compile(r"[\w-]+/[\w.-]+/[\w.-]+/[\w.-]+/\d+")  # owner/model/framework/variation/version
SOURCES = "a Kaggle model (owner/model/framework/variation/version) or a folder"


@dataclass
class PackedRuns:
    """Runs as they are added to a data set: their places, their configurations, and their bases by name."""

    flat: FlatFiles
    base: str | None = None
    fold: int | str | None = None
    places: dict[Path, str] = field(default_factory=dict)
    configs: list[dict[str, Any]] = field(default_factory=list)
    has_baselines: bool = False  # in a blend
    models: dict[str, str] = field(default_factory=dict)  # of the configurations, by their last word
    bases: dict[str, str] = field(default_factory=dict)  # "" for one that lies in the data set

    def add(self, run: RunFolder) -> str:
        """Add a run or a blend with its members, each once, and return its place.

        Raises UserError as `LoadedRun.load` for an unfinished or altered run, and for a base that is not given.
        """
        path = run.path.resolve()
        if path in self.places:
            return self.places[path]
        place = self.places[path] = self._free_place(run)
        if is_blend(run.path):
            self._add_blend(run, place)
        for file in RUN_FILES:
            if (run.path / file).is_file():
                self.flat.add(run.path / file, f"{place}/{file}")
        for fold in self._folds(run):
            self._add_fold(fold, f"{place}/{fold.path.name}", has_model=not is_blend(run.path))
        return place

    def _free_place(self, run: RunFolder) -> str:
        """A new place for a run; that of a way in which a run was asked is in the run, which is added, too."""
        name, taken = re.sub(r"[^\w.-]+", "-", run.path.resolve().name), set(self.places.values())
        if run.asked_of:
            return f"{self.add(run.asked_of)}/asked/{name}"
        names = (f"runs/{name}" if not number else f"runs/{name}-{number + 1}" for number in range(len(taken) + 1))
        return next(one for one in names if one not in taken)

    def _folds(self, run: RunFolder) -> list[FoldFolder]:
        """The folds that answer."""
        if self.fold == ALL or run.has_only_final:
            return [run.final()]
        return run.finished_folds()

    def _add_blend(self, run: RunFolder, place: str) -> None:
        """Add the members, and blend.json with their new places."""
        blend, members = read_blend(run.path), []
        for member in blend.members:
            name = member.name
            self.has_baselines |= member.is_baseline
            if not member.is_baseline:
                name = f"../{self.add(member_folder(member, run.path)).removeprefix('runs/')}"
            members.append(replace(member, name=name))
        with scratch_folder(self.flat.folder / FILE) as part:
            save_blend(Blend(blend.of, tuple(members)), part)
            self.flat.add(part / FILE, f"{place}/{FILE}")

    def _add_fold(self, fold: FoldFolder, place: str, has_model: bool) -> None:
        fold.refuse_altered((*seals.RECORDS, *seals.WEIGHTS))
        for name in FOLD_FILES:
            if (fold.path / name).exists():
                self.flat.add(fold.path / name, f"{place}/{name}")
        config = fold.config()
        if not has_model:
            return
        self.configs.append(config)
        model = config["model"].get("name_or_path")
        if model is not None and not (fold.path / "model").is_dir():
            self._add_base(str(model))

    def _add_base(self, model: str) -> None:
        """Note a base model as a source of the kernel, or add its folder. Raises UserError where neither is known."""
        from nexttoken.models.hub import find_model

        name = Path(model).name
        if self.models.setdefault(name, model) != model:
            what = f"two base models are called {name}: {self.models[name]} and {model}"
            raise UserError(f"{what}; a kernel tells bases by this name, so rename one folder and train again")
        if name in self.bases:
            return
        given = given_base(self.base, name)
        if given and MODEL_SOURCE.fullmatch(given):
            self.bases[name] = given
            return
        folder = find_model(given or model)
        if folder is None or not folder.is_dir():
            what = f"the base model {given or model} is no folder on this machine"
            raise UserError(f"{what}; name {SOURCES} with base=...")
        self.bases[name] = ""
        self.flat.add(folder, f"bases/{name}")


def given_base(base: str | None, name: str) -> str | None:
    """The base that `base` names for the model `name`: the only one, or that of `name=...` between commas."""
    if base is None or "=" not in base:
        return base
    given = dict(one.strip().partition("=")[::2] for one in base.split(","))
    return given.get(name)
