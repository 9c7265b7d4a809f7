"""A section of the page: HTML from a template of its own, and data for the page's script."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import isnan
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from nexttoken.metrics.intervals import Interval
from nexttoken.report.markdown import NOTHING
from nexttoken.report.page.svg import legend

UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}  # in a script
UNQUOTED = "!~*'()"  # in a link, besides letters and digits


@dataclass(frozen=True)
class Section:
    """A part of a chapter. `name` is its anchor; `data` is what the page's script reads, as JSON, None for none."""

    name: str
    title: str
    html: Markup
    data: Any = None


def render(template: str, **values: Any) -> Markup:
    """The template of this folder's templates/ with these values; texts among them are escaped."""
    return Markup(_templates().get_template(template).render(**values))


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("nexttoken.report.page"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "interval": interval, "script_json": script_json}
    environment.globals["legend"] = legend
    return environment


def read_asset(name: str) -> Markup:
    """A style sheet or script of templates/, as it is."""
    loader = _templates().loader
    assert loader is not None
    return Markup(loader.get_source(_templates(), name)[0])


def script_json(value: Any) -> Markup:
    """JSON for a <script> element: no text in it can end the element, and NaN becomes null."""
    text = json.dumps(_finite(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup("".join(UNSAFE.get(letter, letter) for letter in text))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [*map(_finite, value)]
    return None if isinstance(value, float) and value - value != 0 else value


def row_link(key: str, row_id: str) -> str:
    """The link to a row in the section of rows of the chapter `key`, as the page's script quotes ids."""
    return f"#{key}-row-{quote(row_id, safe=UNQUOTED)}"


def number(value: float | None, digits: int = 4, sign: bool = False) -> str:
    """`0.8153`, or a dash for what is not known."""
    return NOTHING if value is None or isnan(value) else f"{value:{'+' if sign else ''}z.{digits}f}"


def interval(value: Interval | None, digits: int = 4, sign: bool = False) -> str:
    """`0.78 to 0.85`, or a dash."""
    return NOTHING if value is None else f"{number(value.low, digits, sign)} to {number(value.high, digits, sign)}"
