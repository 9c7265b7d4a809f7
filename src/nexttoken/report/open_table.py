"""One fold of open answers beside what it has to beat, as a table."""

from collections.abc import Mapping
from typing import Any

from nexttoken.report.markdown import difference_cell, loss_cell, markdown

REFERENCES = {
    "uniform_nll_per_character": "characters that are equally probable",
    "baseline_nll_per_character": "n-grams of the training answers' characters",
}


def open_fold_table(metrics: Mapping[str, Any]) -> str:
    """`metrics` is what metrics.json holds. Only losses per character compare with those of other tokenizers."""
    own = metrics["nll_per_character"]
    rows = [
        [name, "", "", loss_cell(metrics[key]), difference_cell(own - metrics[key])] for key, name in REFERENCES.items()
    ]
    label = f"this fold ({'trained' if metrics['trained'] else 'as it came'})"
    values = [loss_cell(metrics["log_loss"]), f"{metrics['perplexity']:.2f}", loss_cell(own)]
    rows.append([f"**{label}**", *(f"**{value}**" for value in values), ""])
    head = f"{metrics['dataset']}, fold {metrics['fold']}: {metrics['num_examples']:,} held-out answers"
    head += f" of {metrics['num_answer_tokens']:,} tokens"
    header = ["answers' loss in nats", "per token", "perplexity", "per character", "this fold − it"]
    return f"{head}\n\n{markdown(header, rows)}"
