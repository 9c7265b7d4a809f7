"""The weights and the tokenizer that a finished run predicts with: where they lie, and their bytes."""

from typing import TYPE_CHECKING, Any

from nexttoken.runs.blend import is_blend, member_folder, read_blend
from nexttoken.runs.load import load
from nexttoken.settings import ModelSettings

if TYPE_CHECKING:
    from nexttoken.runs.loaded import LoadedRun

MAX_TOKENS = 4096  # of a blend's members, which have budgets of their own
LEFT_OUT = {"checkpoints", "tensorboard", "wandb"}  # folders of a fold that a prediction does not read


def on_base(run: "LoadedRun") -> bool:
    """True where folds share the weights of a base model."""
    return not (run.folds[0].path / "model").is_dir()


def learns(run: "LoadedRun") -> bool:
    """True where each fold has weights of its own."""
    return not on_base(run) or any((run.folds[0].path / "adapter").glob("*.safetensors"))


def model_of(run: "LoadedRun") -> ModelSettings:
    """The base model's settings, or those of the first fold's saved model."""
    model = run.parts.settings.model
    if on_base(run):
        return model
    return model.model_copy(update={"name_or_path": str(run.folds[0].path / "model"), "revision": None})


def budget_of(run: "LoadedRun") -> int:
    from nexttoken.engine.memory_plan.auto_tokens import with_max_tokens

    settings = run.parts.settings
    return int(with_max_tokens(settings, run.folds[0].path).max_tokens) if not is_blend(run.path) else MAX_TOKENS


def tokenizer_of(run: "LoadedRun") -> Any:
    """The tokenizer of the first fold, None of a blend and where it is not on this machine."""
    from nexttoken.models.hub import find_model
    from nexttoken.models.load import load_tokenizer
    from nexttoken.models.published_shapes import cached_folder

    if is_blend(run.path):
        return None
    model = model_of(run)
    is_here = find_model(str(model.name_or_path)) or cached_folder(model)
    return load_tokenizer(model, ()) if is_here else None


def disk_bytes(run: "LoadedRun", num_parameters: int = 0) -> int:
    """Bytes of what a prediction reads: the folds without checkpoints and logs, of a blend those of its
    members, and the base model's weights.

    Of a base that is not here `num_parameters` are counted in 16 bit.
    """
    from nexttoken.models.base_model import weight_files
    from nexttoken.models.hub import find_model

    if is_blend(run.path):
        members = [one for one in read_blend(run.path).members if not one.is_baseline]
        return sum(disk_bytes(load(member_folder(one, run.path))) for one in members)
    own = [
        path
        for fold in run.folds
        for path in fold.path.rglob("*")
        if not LEFT_OUT & {*path.relative_to(run.path).parts}
    ]
    size = sum(path.stat().st_size for path in own if path.is_file())
    if not on_base(run):
        return size
    folder = find_model(str(run.parts.settings.model.name_or_path))
    files = weight_files(folder) if folder and folder.is_dir() else []
    return size + (sum(path.stat().st_size for path in files) or 2 * num_parameters)
