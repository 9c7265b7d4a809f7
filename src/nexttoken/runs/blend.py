"""The blend of several runs, a run folder of its own with blend.json: its members and their weights."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nexttoken.data.files import hash_text, read_json, write_json
from nexttoken.errors import UserError
from nexttoken.metrics.pooling import SPACES, as_ranks, pool
from nexttoken.runs import calibration, seals
from nexttoken.runs.folder import RunFolder

FILE = "blend.json"
BASELINES = ("baseline", "baseline_2", "baseline_3")  # of the task, as the keys of metrics.json begin


@dataclass(frozen=True)
class Member:
    """A run by its folder, relative to the blend's own, or a baseline of the task, with its weight.

    `identity` tells its trainings and its calibration from later ones. `reference` has the quantiles of its
    out-of-fold probabilities, for ranks.
    """

    name: str
    weight: float
    identity: str = ""
    reference: tuple[float, ...] = ()

    @property
    def is_baseline(self) -> bool:
        return self.name in BASELINES


@dataclass(frozen=True)
class Blend:
    """Members and the space in which their probabilities are averaged: logits, probabilities or ranks."""

    of: str
    members: tuple[Member, ...]

    def __call__(self, tables: Sequence[np.ndarray]) -> np.ndarray:
        """The average (N, K) of the members' probabilities, (N, K) each."""
        if self.of == "ranks":
            tables = [as_ranks(one, member.reference) for one, member in zip(tables, self.members, strict=True)]
        return pool(np.array(tables), np.array([member.weight for member in self.members]), self.of)


def identity_of(run: RunFolder) -> str:
    """A hash of the run's trainings and of its calibration: another one answers otherwise."""
    path = run.path / calibration.FILE
    calibrated = path.read_text(encoding="utf-8") if path.exists() else ""
    return hash_text(json.dumps([[fold.training_id for fold in run.finished_folds()], calibrated]))[:16]


def is_blend(folder: Path) -> bool:
    return (folder / FILE).is_file()


def save_blend(blend: Blend, folder: Path) -> None:
    """Write blend.json with a seal."""
    values = {"of": blend.of, "members": [asdict(member) for member in blend.members]}
    write_json({**values, seals.KEY: seals.hash_values(values)}, folder / FILE)


def read_blend(folder: Path) -> Blend:
    """Read blend.json. Raises UserError where it is broken or was changed."""
    saved, fix = read_json(path := folder / FILE), "blend the runs again: python -m nexttoken blend"
    if saved.get(seals.KEY) != seals.hash_values(saved):
        raise UserError(f"{path} was changed after the weights were chosen; {fix}")
    try:
        members = tuple(Member(**{**one, "reference": tuple(one["reference"])}) for one in saved["members"])
        if saved["of"] not in SPACES or not members:
            raise ValueError(f"of={saved['of']} with {len(members)} members")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} holds no blend ({error!r}); {fix}") from None
    return Blend(saved["of"], members)


def member_folder(member: Member, blend: Path) -> RunFolder:
    """The member's run folder. Raises UserError where it is gone, or was trained or calibrated since."""
    run = RunFolder(blend / member.name)
    if identity_of(run) != member.identity:
        raise UserError(
            f"{run.path} was trained or calibrated after {blend} was blended; blend again: python -m nexttoken blend"
        )
    return run


def refuse_blend(config: Mapping[str, Any], folder: Path) -> None:
    """Raise UserError for a blend where a run with a model of its own is needed; `config` is a fold's."""
    if isinstance(given := config.get("blend"), Mapping):
        members = ", ".join(map(str, given.get("members") or ()))
        raise UserError(f"{folder} is a blend and has no model of its own; name one of its members: {members}")
