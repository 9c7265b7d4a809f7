"""A picture's beginning and end, the same for all of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nexttoken.data.files import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> "Figure":
    """A figure without pyplot: no global state, no display, nothing to close."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, path: Path) -> None:
    with whole_file(path) as part:
        figure.savefig(part, format="png", dpi=130)
