"""The table printed after a fold: its scores beside the references on the same rows."""

from collections.abc import Mapping, Sequence
from typing import Any

from nexttoken.report.markdown import difference_cell, loss_cell, markdown
from nexttoken.runs.read import Data, data_of
from nexttoken.types import Metric

OPEN_REFERENCES = {
    "uniform_nll_per_character": "characters that are equally probable",
    "baseline_nll_per_character": "n-grams of the training answers' characters",
}


def reference_names(data: Data) -> dict[str, str]:
    """Names of the references by the prefix of their keys in metrics.json."""
    baseline = "option baseline" if data.is_quiz else "length/overlap baseline"
    names = {"uniform": "uniform guess", "prior": "class prior", "baseline": baseline, "best_possible": "best possible"}
    return {f"{prefix}_log_loss": name for prefix, name in names.items()}


def metrics_in_tables(metrics: Sequence[Metric]) -> list[Metric]:
    """The metrics with a chance level, except log loss, which has columns of its own."""
    return [metric for metric in metrics if metric.chance is not None and metric.name != "log_loss"]


def fold_table(saved: Mapping[str, Any], metrics: Sequence[Metric]) -> str:
    """One fold's scores and its references'; `saved` is what metrics.json holds, `metrics` are those of the task."""
    if saved.get("answers") == "texts":
        return _open_fold_table(saved)
    data, own = data_of(saved), saved["log_loss"]
    others = metrics_in_tables(metrics)
    rows = []
    for key, name in reference_names(data).items():
        if saved.get(key) is not None:
            prefix = "chance" if key == "uniform_log_loss" else key.removesuffix("_log_loss")
            cells = [_optional_cell(saved.get(f"{prefix}_{metric.name}")) for metric in others]
            rows.append([name, loss_cell(saved[key]), *cells, difference_cell(own - saved[key])])
    label = f"this fold ({'trained' if saved['trained'] else 'zero-shot'})"
    cells = [loss_cell(own), *(_optional_cell(saved.get(metric.name)) for metric in others)]
    rows.append([*(f"**{cell}**" if cell else "" for cell in (label, *cells)), ""])
    examples = "questions" if data.is_quiz else "rows"
    head = f"{data.dataset}, fold {saved['fold']}: {saved['num_examples']:,} {examples}"
    header = ["score of", "log loss", *(metric.title for metric in others), "log loss: this fold − it"]
    return f"{head}\n\n{markdown(header, rows)}"


def _open_fold_table(saved: Mapping[str, Any]) -> str:
    """A fold of open answers. Only losses per character compare with those of other tokenizers."""
    own = saved["nll_per_character"]
    rows = [
        [name, "", "", loss_cell(saved[key]), difference_cell(own - saved[key])]
        for key, name in OPEN_REFERENCES.items()
    ]
    label = f"this fold ({'trained' if saved['trained'] else 'as it came'})"
    values = [loss_cell(saved["log_loss"]), f"{saved['perplexity']:.2f}", loss_cell(own)]
    rows.append([f"**{label}**", *(f"**{value}**" for value in values), ""])
    head = f"{saved['dataset']}, fold {saved['fold']}: {saved['num_examples']:,} held-out answers"
    head += f" of {saved['num_answer_tokens']:,} tokens"
    header = ["answers' loss in nats", "per token", "perplexity", "per character", "this fold − it"]
    return f"{head}\n\n{markdown(header, rows)}"


def _optional_cell(value: float | None) -> str:
    return "" if value is None else loss_cell(value)
