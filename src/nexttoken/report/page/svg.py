"""Plots as SVG: axes with round ticks, lines, dots, bars and levels; colours come from the page's style sheet.

Every mark has a <title>, which browsers show beside the pointer and screen readers read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, floor, isfinite, log10

from markupsafe import Markup, escape

MARGINS = (12, 16, 44, 58)  # above, right, below, left of the plane, in pixels
NUM_COLOURS = 8  # of the style sheet, .s0 to .s7


@dataclass(frozen=True)
class Axis:
    """An axis from `low` to `high` with its label; `names` are ticks in words at 0, 1, 2, ..."""

    low: float
    high: float
    label: str
    names: tuple[str, ...] = ()

    @classmethod
    def over(cls, values: Sequence[float], label: str, margin: float = 0.06) -> "Axis":
        """An axis that holds the values with a margin on both sides."""
        values = [value for value in values if isfinite(value)]
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        space = margin * (high - low) or max(abs(high) * margin, 1e-3)
        return cls(low - space, high + space, label)

    def ticks(self, number: int = 5) -> list[float]:
        """Round numbers within the axis, about `number` of them; the places of `names` where it has some."""
        if self.names:
            return [float(place) for place in range(len(self.names))]
        rough = (self.high - self.low) / number
        power = 10.0 ** floor(log10(rough))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
        first = ceil(self.low / step - 1e-9)
        return [place * step for place in range(first, floor(self.high / step + 1e-9) + 1)]

    def words(self, tick: float) -> str:
        return self.names[int(tick)] if self.names else f"{tick:.10g}"


@dataclass
class Plot:
    """A plane of `width` x `height` pixels between two axes, on which marks are put; it scales with the page."""

    x: Axis
    y: Axis
    title: str  # read out instead of the picture
    width: int = 640
    height: int = 300
    left: int = MARGINS[3]  # pixels for the words of the vertical axis
    marks: list[Markup] = field(default_factory=list)

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Pixels of a point; beyond the axes it lies on their ends."""
        across = (min(max(x, self.x.low), self.x.high) - self.x.low) / (self.x.high - self.x.low)
        up = (min(max(y, self.y.low), self.y.high) - self.y.low) / (self.y.high - self.y.low)
        above, right, below, _ = MARGINS
        return self.left + across * (self.width - self.left - right), self.height - below - up * (
            self.height - above - below
        )

    def line(self, xs: Sequence[float], ys: Sequence[float], name: str, style: str = "s0") -> None:
        """A line through the points; `style` are classes of the style sheet, such as "s1 dashed thin"."""
        points = " ".join("{:.1f},{:.1f}".format(*self.place(x, y)) for x, y in zip(xs, ys, strict=True))
        self._add('<polyline class="line {}" points="{}"><title>{}</title></polyline>', style, points, name)

    def dot(self, x: float, y: float, name: str, style: str = "s0", radius: float = 4) -> None:
        left, top = self.place(x, y)
        mark = '<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="{:g}"><title>{}</title></circle>'
        self._add(mark, style, left, top, radius, name)

    def span(self, one: tuple[float, float], other: tuple[float, float], name: str, style: str = "s0") -> None:
        """A straight stroke between two points, such as an interval."""
        ends = (*self.place(*one), *self.place(*other))
        mark = '<line class="span {}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"><title>{}</title></line>'
        self._add(mark, style, *ends, name)

    def box(self, one: tuple[float, float], other: tuple[float, float], name: str, style: str = "s0") -> None:
        """A filled rectangle between two corners."""
        (left, top), (right, bottom) = self.place(*one), self.place(*other)
        mark = '<rect class="box {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>'
        self._add(mark, style, min(left, right), min(top, bottom), abs(right - left), abs(bottom - top), name)

    def level(self, y: float, name: str, style: str = "level") -> None:
        """A horizontal line over the whole plane with its name at the right end."""
        self.span((self.x.low, y), (self.x.high, y), name, style)
        right, top = self.place(self.x.high, y)
        self._add('<text class="note" x="{:.1f}" y="{:.1f}" text-anchor="end">{}</text>', right - 4, top - 4, name)

    def levels(self, levels: Mapping[str, float]) -> None:
        """Horizontal lines with their names and values, in turn at another place, so that near ones stay readable."""
        width = self.width - self.left - MARGINS[1]
        for place, (name, value) in enumerate(sorted(levels.items(), key=lambda pair: pair[1])):
            self.span((self.x.low, value), (self.x.high, value), f"{name}: {value:.4f}", "level")
            left = self.left + width * (1 - place % 3 / 3)
            mark = '<text class="note" x="{:.1f}" y="{:.1f}" text-anchor="end">{} {:.4f}</text>'
            self._add(mark, left - 4, self.place(self.x.low, value)[1] - 4, name, value)

    def note(self, x: float, y: float, text: str) -> None:
        """A text beside a point, on its left where the right edge is near."""
        left, top = self.place(x, y)
        is_right = left > 0.65 * self.width
        mark = '<text class="note" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>'
        self._add(mark, left - 6 if is_right else left + 6, top - 6, "end" if is_right else "start", text)

    def svg(self) -> Markup:
        """The <svg> element."""
        axes = Plot(self.x, self.y, self.title, self.width, self.height, self.left)
        bottom, top = self.height - MARGINS[2], MARGINS[0]
        for tick in self.x.ticks():
            x = self.place(tick, self.y.low)[0]
            axes._add('<line class="grid" x1="{0:.1f}" y1="{1}" x2="{0:.1f}" y2="{2}"/>', x, top, bottom)
            words = '<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>'
            axes._add(words, x, bottom + 16, self.x.words(tick))
        for tick in self.y.ticks():
            y = self.place(self.x.low, tick)[1]
            axes._add('<line class="grid" x1="{0}" y1="{1:.1f}" x2="{2}" y2="{1:.1f}"/>', self.left, y, self.width - 16)
            words = '<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>'
            axes._add(words, self.left - 6, y + 4, self.y.words(tick))
        middle = (self.left + self.width - MARGINS[1]) / 2
        axes._add(
            '<text class="axis" x="{:.0f}" y="{}" text-anchor="middle">{}</text>', middle, self.height - 8, self.x.label
        )
        beside = '<text class="axis" transform="translate(13 {:.0f}) rotate(-90)" text-anchor="middle">{}</text>'
        axes._add(beside, (top + bottom) / 2, self.y.label)
        head = Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
            self.width, self.height, self.title
        )
        return head + Markup("").join([*axes.marks, *self.marks]) + Markup("</svg>")

    def _add(self, mark: str, *values: object) -> None:
        self.marks.append(Markup(mark).format(*values))


def legend(names: Sequence[str]) -> Markup:
    """The names of the colours, in order."""
    box = '<svg viewBox="0 0 12 12" aria-hidden="true"><rect class="box s{}" width="12" height="12"/></svg>'
    item = f'<span class="key">{box}{{}}</span>'
    parts = [Markup(item).format(place % NUM_COLOURS, escape(name)) for place, name in enumerate(names)]
    return Markup('<p class="legend">{}</p>').format(Markup(" ").join(parts))
