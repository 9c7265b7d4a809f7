"""The lines at the start of a training: what was changed, and the main values."""

from collections.abc import Mapping, Sequence
from typing import Any

from nexttoken.build import Parts
from nexttoken.data.files import to_yaml
from nexttoken.report.terminal import show_value
from nexttoken.runs.folder import FoldFolder
from nexttoken.settings import ALL, AUTO


def show_run(
    parts: Parts,
    config: Mapping[str, Any],
    sizes: Mapping[str, int],
    num_folds: int,
    fold: FoldFolder,
    overrides: Sequence[str],
) -> None:
    """Print the changes from the defaults and the main values, a line each; `Learner.load` adds the device.

    `sizes` is the number of examples of each part.
    """
    s = parts.settings
    if s.print_config:
        print(to_yaml(config), end="")
    scratch = s.model.scratch
    model = s.model.name_or_path or f"from scratch, {scratch.num_layers} layers of width {scratch.hidden_size}"
    weights = f", {s.quantization.bits} bit" if s.quantization else ""
    adapter = f", LoRA of rank {s.adapter.r}" if s.adapter else ""
    steps = f"{s.trainer.max_epochs} epochs, batches of {s.fit.batch_size}, learning rate {s.fit.learning_rate:g}"
    prompt, batch = ("auto" if number == AUTO else f"{number:,}" for number in (s.max_tokens, s.batch_tokens))
    limit = f"; limit_rows keeps the first {s.limit_rows:,} of each part" if s.limit_rows else ""
    trained = "a regression on the frozen model's states" if parts.reads_states else steps
    values = {
        "run": f"{fold.path}, " + ("a final model on all rows" if s.fold == ALL else f"of {num_folds} folds"),
        "changed": " ".join(overrides) or "nothing, all defaults",
        "model": f"{model}{weights}{adapter}",
        "examples": ", ".join(f"{size:,} {part}" for part, size in sizes.items()) + limit,
        "training": trained if s.trainer.max_epochs else "none (zero-shot)",
        "tokens": f"{prompt} in a prompt, {batch} in a batch",
    }
    if s.model.name_or_path is None:
        values["note"] = "a rehearsal: a small new model learns little of a real task; model=... loads a pretrained one"
    for name, value in values.items():
        show_value(name, value)
