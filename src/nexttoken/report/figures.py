"""Pictures without a display, with names in any script: a font that can write them, else a number for each."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nexttoken.data.files import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> "Figure":
    """A figure without pyplot: no global state, no display, nothing to close. Sizes are in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, path: Path) -> None:
    """Write the figure as a PNG, whole or not at all."""
    with whole_file(path) as part:
        figure.savefig(part, format="png", dpi=130)


def plain_text(text: str) -> str:
    """The text for matplotlib, where a bare dollar sign would begin mathematics."""
    return text.replace("$", r"\$")


@dataclass(frozen=True)
class Lettering:
    """Fonts for names: matplotlib tries them in order; a name that none can write is replaced by a number."""

    fonts: tuple[str, ...]
    numbers: Mapping[str, str]

    @classmethod
    def for_names(cls, names: Sequence[str]) -> "Lettering":
        """The default font, and the first installed one with the letters that it lacks; if there is none, numbers."""
        from matplotlib.font_manager import FontProperties, findfont, get_font

        path = findfont(FontProperties())
        default = get_font(path).family_name
        strange = {name: lacking for name in names if (lacking := set(map(ord, name)) - _letters(path))}
        needed = set().union(*strange.values())
        if not needed:
            return cls((default,), {})
        if other := next((name for name, path in _installed_fonts() if needed <= _letters(path)), None):
            return cls((default, other), {})
        return cls((default,), {name: f"[{number}]" for number, name in enumerate(strange, start=1)})

    def show(self, name: str) -> str:
        """The name, or its number, for matplotlib."""
        return plain_text(self.numbers.get(name, name))

    @property
    def key(self) -> list[str]:
        """`[1] 芸能` for every name that is replaced by a number."""
        return [f"{number} {name}" for name, number in self.numbers.items()]

    @contextmanager
    def figure(self, width: float, height: float, path: Path) -> Iterator["Figure"]:
        """A figure to be drawn, written to `path` at the end; each letter is of the first font that has it."""
        from matplotlib import rc_context

        with rc_context({"font.family": list(self.fonts)}):
            yield (figure := new_figure(width, height))
            save_figure(figure, path)


def _installed_fonts() -> list[tuple[str, str]]:
    """Names and paths of the installed fonts; "Last Resort" is left out: it has every letter, as a box."""
    from matplotlib.font_manager import fontManager

    return sorted({(f.name, f.fname) for f in fontManager.ttflist if not f.name.startswith("Last Resort")})


@cache
def _letters(path: str) -> frozenset[int]:
    """The code points that a font has glyphs for; none where it cannot be opened."""
    from matplotlib.font_manager import get_font

    try:
        return frozenset(get_font(path).get_charmap()) | {ord("\n")}
    except (OSError, RuntimeError):
        return frozenset()
