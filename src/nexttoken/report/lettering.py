"""Names in pictures, in any script: with a font that can write them, else by number, since a box says nothing."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Lettering:
    """How names are shown: `fonts` write them in this order; names that none can write stand under their number."""

    fonts: tuple[str, ...]
    numbers: Mapping[str, str]

    @classmethod
    def for_names(cls, names: Sequence[str]) -> "Lettering":
        """The default font, and the first installed one that has what it lacks; if there is none, numbers."""
        default = _default()
        strange = {name: lacking for name in names if (lacking := set(map(ord, name)) - _written(default.path))}
        needed = set().union(*strange.values()) if strange else set()
        other = next((font.name for font in _others() if needed <= _written(font.path)), None) if needed else None
        if not needed or other:
            return cls(tuple(filter(None, (default.name, other))), {})
        return cls((default.name,), {name: f"[{number}]" for number, name in enumerate(strange, start=1)})

    def show(self, name: str) -> str:
        """The name as matplotlib is to be given it; a dollar sign would begin mathematics."""
        return self.numbers.get(name, name).replace("$", r"\$")

    @property
    def key(self) -> list[str]:
        """`[1] 芸能` for every name that stands under its number."""
        return [f"{number} {name}" for name, number in self.numbers.items()]

    @contextmanager
    def font(self) -> Iterator[None]:
        """Within it matplotlib takes each letter from the first of the fonts that has it."""
        from matplotlib import rc_context

        with rc_context({"font.family": list(self.fonts)}):
            yield


@dataclass(frozen=True)
class _Font:
    name: str
    path: str


def _default() -> _Font:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    path = findfont(FontProperties())
    return _Font(get_font(path).family_name, path)


def _others() -> list[_Font]:
    """Installed fonts by name; "Last Resort" has every letter, as a box."""
    from matplotlib.font_manager import fontManager

    fonts = {_Font(font.name, font.fname) for font in fontManager.ttflist if not font.name.startswith("Last Resort")}
    return sorted(fonts, key=lambda font: (font.name, font.path))


@cache
def _written(path: str) -> frozenset[int]:
    """The code points that a font has glyphs for; none where it cannot be opened."""
    from matplotlib.font_manager import get_font

    try:
        return frozenset(get_font(path).get_charmap()) | {ord("\n")}
    except (OSError, RuntimeError):
        return frozenset()
