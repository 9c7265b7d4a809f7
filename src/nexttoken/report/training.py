"""The lines that a training prints: its main values at the start; its table and the next commands at the end."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from nexttoken.build import Parts
from nexttoken.data.files import to_yaml
from nexttoken.data.folds import load_folds
from nexttoken.data.typed_texts import typed_override
from nexttoken.errors import UserError, first_five
from nexttoken.report.terminal import show, show_line, show_value
from nexttoken.runs.fold_metrics import LOG_LOSS, own_metric, sweep_loss
from nexttoken.runs.folder import FoldFolder, RunFolder, describe_differences
from nexttoken.runs.records import RETRAIN
from nexttoken.settings import ALL, AUTO

FINAL = "a final model on all rows: nothing is held out, so it has no out-of-fold score; the folds estimate it"
MANY_EPOCHS, FEW_STEPS = 20, 4  # of training, and of an epoch, from which on rows are learnt by heart
NEARLY_NOTHING = 0.1  # nats an answer, or a token of an open one


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


def report_finished(parts: Parts, fold: FoldFolder, config: Mapping[str, Any], overrides: Sequence[str]) -> float:
    """Print a finished fold's table and the next commands; return its dev loss, or its log loss without dev rows.

    Raises UserError where the fold was trained with other settings, or a file of it was changed since.
    """
    saved = fold.refuse_altered()
    if differences := describe_differences(fold.config(), config):
        raise UserError(f"{fold.path} has other settings ({differences}); choose another name=... or overwrite=true")
    from nexttoken.report.tables import fold_table  # needs pandas, which a refused command must not wait for

    try:
        show(FINAL if fold.is_final else fold_table(saved, getattr(parts.task, "metrics", ())))
    except KeyError as error:
        raise UserError(f"{fold.path / 'metrics.json'} has no {error}; {RETRAIN}") from None
    for line in remarks(saved):
        show_line(line)
    print(f"run: {fold.path}")
    for command in next_commands(parts, fold, overrides):
        print(f"next: {command}")
    return sweep_loss(saved)


def remarks(saved: Mapping[str, Any]) -> list[str]:
    """Lines on the checkpoint that was taken, and on a training that went wrong, with what to look at first."""
    lines, metric = [], str(saved.get("metric"))
    if "best_epoch" in saved:
        dev = f"the best dev loss, {saved['dev_log_loss']:.4f}" if "dev_log_loss" in saved else "the last"
        if metric != "log_loss" and (score := saved.get(f"dev_{metric}")) is not None:
            dev = f"the best dev {metric}, {score:.4f}; dev loss {saved['dev_log_loss']:.4f}"
        number = saved.get("refit_steps")
        many = "as many" if number == saved["best_step"] else number
        again = f"; then trained anew on train and dev rows for {many} steps" if number else ""
        lines.append(f"checkpoint: epoch {saved['best_epoch']}, step {saved['best_step']} ({dev}){again}")
    if names := saved.get("left_out"):
        lines.append(f"{saved['metric']}: rows of one class only are left out: {first_five(names)}")
    if metric in saved and saved[metric] is None:
        lines.append(f"{metric} cannot be computed on these held-out rows, so that this fold has no score by it")
    by_heart = is_learnt_by_heart(saved)
    if saved.get("trained") and not by_heart and is_worse_than_prior(saved):
        lines.append(
            "worse than the class prior, which reads no prompt: look first at the labels and at prompts.jsonl"
            " (save_prompts=true), then try a lower fit.learning_rate and more rows"
        )
    if (first := saved.get("first_train_loss")) is not None:
        fell = f"training loss: {first:.4f} in the first fifth of the steps, {saved['last_train_loss']:.4f} in the last"
        lines.append(f"{fell}{judgement(first, saved['last_train_loss'], saved['best_epoch'] if by_heart else None)}")
    return lines


def is_worse_than_prior(saved: Mapping[str, Any]) -> bool:
    """True where the fold's score by the task's metric, else its log loss, is worse than the class prior's."""
    for metric in (own_metric(saved), LOG_LOSS):
        own, prior = saved.get(metric.name), saved.get(f"prior_{metric.name}")
        if own is not None and prior is not None:
            return metric.is_better(prior, own)
    return False


def is_learnt_by_heart(saved: Mapping[str, Any]) -> bool:
    """True where a few batches were trained again and again until the end, as by debug=overfit."""
    epochs = saved.get("best_epoch", 0)
    return "dev_log_loss" not in saved and epochs >= MANY_EPOCHS and saved["best_step"] <= FEW_STEPS * epochs


def judgement(first: float, last: float, times: int | None) -> str:
    """Words on a training loss; `times`: the epochs on the same few batches, None for a real training."""
    if times and last <= NEARLY_NOTHING:
        return ": nearly nothing, so the model can learn these rows by heart"
    if times:
        look = "look at the labels and at prompts.jsonl (save_prompts=true)"
        then = "try a higher fit.learning_rate or trainer.max_epochs, and train_transforms=none"
        return (
            f": not nearly nothing (above {NEARLY_NOTHING}) after {times} epochs on the same rows; {look}, then {then}"
        )
    return "" if last < first else ": it did not fall; try another fit.learning_rate or more epochs"


def next_commands(parts: Parts, fold: FoldFolder, overrides: Sequence[str]) -> list[str]:
    """The commands to type next: to train the remaining folds, then to predict; of a final model to predict."""
    run = RunFolder(fold.path.parent)
    predict = ["python", "predict.py", typed_override("run", str(run.path))]
    if fold.is_final:
        return [shlex.join([*predict, "fold=all"])]
    num_folds = parts.split.num_folds or load_folds(run.path / "folds.csv").number
    wanted = [number for number in range(num_folds) if number != parts.settings.without_fold]
    left = [str(number) for number in wanted if not run.fold(number).is_finished]
    same = [override for override in overrides if override.partition("=")[0] != "fold"]
    others = [shlex.join(["python", "train.py", "-m", "fold=" + ",".join(left), *same])] if left else []
    return [*others, shlex.join(predict)]
