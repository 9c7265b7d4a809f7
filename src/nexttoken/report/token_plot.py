"""The histogram of a variant's rows by their number of tokens, one panel per variant on the same axis."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nexttoken.report.figures import Lettering, new_figure, save_figure

NUM_BINS = 50


def token_histogram(variants: Mapping[str, np.ndarray], path: Path) -> list[str]:
    """Write a PNG from each variant's tokens per row, (N,) each, with its mean as a line.

    Returns what the numbers in the picture stand for where no installed font can write the names, else [].
    """
    lettering = Lettering.for_names(list(variants))
    edges = np.linspace(0, max(int(tokens.max()) for tokens in variants.values()) + 1, NUM_BINS + 1)
    with lettering.font():
        figure = new_figure(8.0, 0.8 + 1.3 * len(variants))
        panels = figure.subplots(len(variants), 1, sharex=True, squeeze=False)[:, 0]
        for place, (axes, (name, tokens)) in enumerate(zip(panels, variants.items(), strict=True)):
            axes.hist(tokens, edges, color=f"C{place % 10}")
            axes.axvline(tokens.mean(), color="0.2", linewidth=1, linestyle="--")
            axes.set_ylabel("rows")
            title = f"{lettering.show(name)}: {len(tokens):,} rows, mean {tokens.mean():.1f}"
            axes.set_title(title, fontsize=9, loc="left")
        panels[-1].set_xlabel("tokens per row")
        save_figure(figure, path)
    return lettering.key
