"""The run that training begins from: the fold of the same number, which must not have learnt the held-out rows."""

from dataclasses import replace
from pathlib import Path

from nexttoken.build import Parts
from nexttoken.data.files import read_json
from nexttoken.data.folds import load_folds
from nexttoken.data.targets import declared
from nexttoken.errors import UserError
from nexttoken.runs.folder import FoldFolder, RunFolder, describe_differences
from nexttoken.settings import ALL, Settings
from nexttoken.types import Example

SHAPE = ("r", "alpha", "rslora", "dora", "target_modules")  # settings that an adapter's weights belong to


def with_starting_run(parts: Parts, held_out: list[Example]) -> Parts:
    """The parts with the weights or the adapter of `model.from_run`, if that names a run.

    Raises UserError for an unfinished run, one that learnt held-out rows, another base, and another adapter.
    """
    model = parts.settings.model
    if model.from_run is None:
        return parts
    fold = _choose_fold(RunFolder(Path(model.from_run)), parts.settings.fold)
    print(f"{'starts at':<9} {fold.path}{_refuse_leaks(fold, parts, held_out)}")
    settings = _with_weights(parts.settings, fold)
    _refuse_other_layer(parts, fold)
    return replace(parts, settings=settings)


def with_starting_weights(settings: Settings) -> Settings:
    """The settings with the weights or the adapter of `model.from_run`, if that names a run; rows are not compared."""
    if settings.model.from_run is None:
        return settings
    return _with_weights(settings, _choose_fold(RunFolder(Path(settings.model.from_run)), settings.fold))


def _with_weights(settings: Settings, fold: FoldFolder) -> Settings:
    whole, adapter = fold.path / "model", fold.path / "adapter"
    if not settings.trainer.max_epochs:
        raise UserError("model.from_run is where a training begins; without one use predict.py run=...")
    if whole.is_dir():
        _refuse_other_model(settings, whole, fold.config()["model"]["name_or_path"])
        changed = {"name_or_path": str(whole), "from_run": str(whole)}
    elif (adapter / "adapter_config.json").exists():
        _refuse_other_adapter(settings, fold)
        changed = {"from_run": str(adapter)}
    else:
        raise UserError(f"{fold.path} saved no weights of its own (zero-shot); use model.name_or_path instead")
    return settings.model_copy(update={"model": settings.model.model_copy(update=changed)})


def _choose_fold(run: RunFolder, number: int | str) -> FoldFolder:
    """The finished fold of this number, else the final model, else the first finished one."""
    if (same := run.fold(number)).is_finished:
        return same
    return run.final() if run.fold(ALL).is_finished else run.finished_folds()[0]


def _refuse_leaks(fold: FoldFolder, parts: Parts, held_out: list[Example]) -> str:
    """Words on the fold where it says nothing about the held-out rows: it is of other files."""
    saved = fold.metrics()
    if (saved["task"], saved["dataset"]) != (parts.task.name, Path(parts.settings.input_dir).resolve().name):
        files = f"{saved['task']}, {saved['dataset']}"
        return f", of other files ({files}): it is not known whether it learnt rows that are held out here"
    table = load_folds(fold.path.parent / "folds.csv")
    learnt = {one for one, number in zip(table.ids, table.folds.tolist(), strict=True) if number != fold.number}
    if leaked := [example.id for example in held_out if example.id in learnt]:
        raise UserError(
            f"{fold.path} has learnt {len(leaked)} of the {len(held_out)} rows that are held out here; begin from a run"
            f" with the same folds that has fold {parts.settings.fold}, or use fold=all"
        )
    return ""


def _refuse_other_model(settings: Settings, whole: Path, base: str | None) -> None:
    """Refuse an adapter on the run's whole weights, and another model beside them."""
    if settings.adapter:
        raise UserError(
            f"{whole.parent} saved whole weights, other ones in each fold, on which an adapter cannot stand; use"
            f" adapter=none, or model.name_or_path={whole} instead of model.from_run"
        )
    if (given := settings.model.name_or_path) not in (None, base):
        raise UserError(f"{whole.parent} was trained on another base ({base or 'scratch'}) than {given}; leave it out")


def _refuse_other_adapter(settings: Settings, fold: FoldFolder) -> None:
    if settings.adapter is None:
        raise UserError(f"{fold.path} saved an adapter; add adapter=lora and the model it was trained on")
    both = (fold.config()["adapter"], settings.adapter.model_dump())
    old, new = ({f"adapter.{key}": one[key] for key in SHAPE} for one in both)
    if differences := describe_differences(old, new):
        raise UserError(f"{fold.path} has another adapter ({differences}); give the run's own settings")


def _refuse_other_layer(parts: Parts, fold: FoldFolder) -> None:
    """Refuse other labels where both have a layer for them; the output head for words knows labels by their text."""
    heads = (fold.config()["head"], parts.settings.head)
    if any("vocabulary" in declared(head, "offers") for head in heads):
        return
    if (labels := tuple(read_json(fold.path / "labels.json")["labels"])) != tuple(parts.prompt.labels):
        raise UserError(f"{fold.path} has a layer for {', '.join(labels)} in this order; give the same labels")
