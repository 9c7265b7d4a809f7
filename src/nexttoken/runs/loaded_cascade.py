"""A cascade loaded to predict: a run answers every row, and a larger run those rows whose answers are unsure."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nexttoken.errors import UserError
from nexttoken.inference.cascade import Cascade
from nexttoken.runs.asking import mean_scores
from nexttoken.runs.config import Changes, searches
from nexttoken.runs.folder import RunFolder
from nexttoken.runs.loaded import LoadedRun
from nexttoken.settings import PredictSettings
from nexttoken.transforms import apply_transforms
from nexttoken.types import Example, LabelPredictions

if TYPE_CHECKING:
    from nexttoken.runs.cascade import Pair


@dataclass(frozen=True, kw_only=True)
class LoadedCascade(LoadedRun):
    """A small run with a larger one behind it; its parts have no transforms, since each run has its own."""

    small: LoadedRun
    larger: LoadedRun
    cascade: Cascade
    threshold: float = 0.5  # on the second of two classes, of the cascaded out-of-fold rows

    @classmethod
    def of(cls, small: LoadedRun, larger: LoadedRun, pair: "Pair", share: float | None) -> "LoadedCascade":
        """Fit the cascade on the out-of-fold rows in `pair`; without a share it is chosen on them."""
        scored = pair.cross_chosen() if share is None else pair.cascaded(share)
        chosen = pair.choose_share() if share is None else share
        folds = [fold.metrics for fold in scored.run.folds]
        own = {field.name: getattr(small, field.name) for field in fields(LoadedRun)}
        own["parts"] = replace(small.parts, transforms={})
        own["asked"] = {**small.asked, "cascade": larger.path.resolve().name, "cascade_share": chosen}
        own["known_scores"] = mean_scores(folds)
        threshold = float(np.mean([fold.get("threshold", 0.5) for fold in folds]))
        return cls(**own, small=small, larger=larger, cascade=pair.fit(chosen), threshold=threshold)

    def answer(self, examples: list[Example]) -> LabelPredictions:
        """The small run's answers, and both runs' for the unsure rows; `seconds` are sums.

        Raises UserError before the first answer where weights of either run were altered, and where the transforms of
        the runs leave other rows.
        """
        for fold in self.larger.folds:
            self.larger.refuse_altered_weights(fold)
        first = _answers(self.small, examples)
        places = np.flatnonzero(self.cascade.unsure(first.probs))
        print(f"cascade: {len(places):,} of {len(first.ids):,} rows go on to {self.larger.path}", flush=True)
        probs, seconds = first.probs.copy(), first.columns["seconds"].copy()
        if len(places):
            second = _answers(self.larger, [examples[place] for place in places])
            probs[places] = self.cascade.combine(first.probs[places], second.probs)
            seconds[places] += second.columns["seconds"]
        return LabelPredictions(first.ids, probs, {"seconds": seconds}, self.threshold)


def load_cascade(folder: RunFolder, settings: PredictSettings, changes: Changes) -> LoadedCascade:
    """The run in this folder with the larger one of the settings behind it; a given retriever is for runs that search.

    Raises UserError where no larger run is named, the runs do not fit together, or are to be asked in another way.
    """
    if not settings.cascade:
        raise UserError("cascade_share=... is the share of a larger run; name it, too: cascade=output/<task>/<name>")
    as_trained = Changes(folder=changes.folder, stream_layers=changes.stream_layers)
    if changes != replace(as_trained, retriever=changes.retriever):
        what = f"cascade={settings.cascade}: both runs are asked as they were trained"
        raise UserError(f"{what}; leave inference, correction, max_tokens, generation, engine and fold out")
    folders = folder, RunFolder(Path(settings.cascade))
    from nexttoken.runs.cascade import Pair  # needs pandas

    pair = Pair.read(*(run.path for run in folders))
    given, trusts = (settings.input_dir, settings.batch_tokens, settings.base), settings.trust_remote_code
    searching = [run for run in folders if searches(run.finished_folds()[0].config())] or folders
    small, larger = (
        LoadedRun.load(run, *given, changes if run in searching else as_trained, trusts) for run in folders
    )
    return LoadedCascade.of(small, larger, pair, settings.cascade_share)


def _answers(run: LoadedRun, examples: list[Example]) -> LabelPredictions:
    """The run's answers after its transforms. Raises UserError where they leave other rows than those given."""
    answers = run.answer(apply_transforms(examples, run.parts.transforms))
    if answers.ids != tuple(example.id for example in examples):
        raise UserError(f"{run.path}: its transforms leave other rows; a cascade needs runs that keep all rows")
    return answers
