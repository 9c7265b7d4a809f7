"""A finished run or a blend loaded to predict, by its folder."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nexttoken.errors import UserError
from nexttoken.runs.blend import Blend, is_blend, member_folder, read_blend
from nexttoken.runs.config import Changes
from nexttoken.runs.fold_baseline import FoldBaseline, baseline_of
from nexttoken.runs.folder import RunFolder
from nexttoken.runs.loaded import UNCHANGED, LoadedRun
from nexttoken.transforms import apply_transforms
from nexttoken.types import Example, LabelPredictions

Answering = LoadedRun | FoldBaseline


def load(
    folder: RunFolder,
    input_dir: str | None = None,
    batch_tokens: int | None = None,
    base: str | None = None,
    changes: Changes = UNCHANGED,
    trust_remote_code: bool = False,
) -> LoadedRun:
    """The run in this folder, as `LoadedRun.load`, or the blend with all of its members.

    `base` and a given retriever are for each member. Raises UserError as `LoadedRun.load`, and for a blend whose
    members are gone or were trained since.
    """
    if not is_blend(folder.path):
        return LoadedRun.load(folder, input_dir, batch_tokens, base, changes, trust_remote_code)
    own = replace(UNCHANGED, **{key: getattr(changes, key) for key in ("folder", "retriever", "stream_layers")})
    blend = read_blend(folder.path)
    runs = [
        load(member_folder(member, folder.path), input_dir, batch_tokens, base, own, trust_remote_code)
        for member in blend.members
        if not member.is_baseline
    ]
    return LoadedBlend.of(folder, blend, runs, input_dir, replace(changes, retriever={}))


def load_run(
    path: str | Path,
    base: str | None = None,
    written: str | Path | None = None,
    trust_remote_code: bool = False,
    fold: int | str | None = None,
) -> LoadedRun:
    """Load a run folder for use in a notebook: `load_run("output/lmsys/<name>").predict(test_df)`.

    `written` is a folder for answers as they come, so that a killed call resumes; None: open ones are saved in the
    run's own folder, probabilities nowhere. `trust_remote_code` runs the code that comes with the model. `fold="all"`
    loads the final model on all rows instead of the folds.
    """
    changes = Changes(folder=Path(written) if written else None, fold=fold)
    return load(RunFolder(Path(path)), base=base, changes=changes, trust_remote_code=trust_remote_code)


@dataclass(frozen=True, kw_only=True)
class LoadedBlend(LoadedRun):
    """A blend; its parts are those of its first run, without transforms: each member has its own."""

    blend: Blend
    members: tuple[Answering, ...]  # those with a weight, in the order of `blend.members`

    @classmethod
    def of(
        cls, folder: RunFolder, blend: Blend, runs: Sequence[LoadedRun], input_dir: str | None, changes: Changes
    ) -> "LoadedBlend":
        """The blend of loaded runs, in their order among its members, and of baselines.

        Raises UserError where it is to be asked in another way.
        """
        if changes != Changes(folder=changes.folder):
            what = f"{folder.path} is a blend, whose members answer in their own ways"
            raise UserError(f"{what}; leave inference, generation, engine and fold out")
        left = iter(runs)
        every = [
            baseline_of(member.name, folder, input_dir) if member.is_baseline else next(left)
            for member in blend.members
        ]
        used = [pair for pair in zip(blend.members, every, strict=True) if pair[0].weight]  # the first may have none
        blend, members = replace(blend, members=tuple(one for one, _ in used)), tuple(run for _, run in used)
        first, folds = runs[0], folder.finished_folds()
        parts = replace(first.parts, transforms={})
        for fold in folds:
            fold.refuse_altered()
        return cls(folder, folds, parts, first.batch_tokens, first.environment, changes, blend=blend, members=members)

    def answer(self, examples: list[Example]) -> LabelPredictions:
        """The weighted average of the members' answers, after the blend's own calibration; `seconds` are sums.

        Raises UserError where a member answers other rows.
        """
        calibration = self.calibration
        answers = [answer_of(member, examples) for member in self.members]
        if any(one.ids != answers[0].ids for one in answers):
            raise UserError(f"{self.path}: its members' transforms leave different rows; blend runs that keep all rows")
        probs = self.blend([one.probs for one in answers])
        if calibration:
            probs = calibration.scaling(probs)
        seconds = np.sum([one.columns["seconds"] for one in answers], axis=0)
        return LabelPredictions(answers[0].ids, probs, {"seconds": seconds}, self.threshold)


def answer_of(member: Answering, examples: list[Example]) -> LabelPredictions:
    """A member's answers to examples without transforms: a run has its own."""
    own = apply_transforms(examples, member.parts.transforms) if isinstance(member, LoadedRun) else examples
    return member.answer(own)
