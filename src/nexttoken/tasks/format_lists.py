"""File formats found by listing a folder: each module of it adds the formats of its tuple FORMATS."""

from collections.abc import Sequence
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Protocol, TypeVar

from nexttoken.errors import UserError, nearest


class Format(Protocol):
    """A file format as the lists know it."""

    @property
    def name(self) -> str: ...

    @property
    def position(self) -> int: ...  # formats with a lower one are tried first on a file


F = TypeVar("F", bound=Format)


def list_formats(package: ModuleType, kind: type[F]) -> list[F]:
    """Return the formats of a folder's modules in the order in which they are tried on a file."""
    modules = [import_module(f"{package.__name__}.{module.name}") for module in iter_modules(package.__path__)]
    formats = [one for module in modules for one in getattr(module, "FORMATS", ()) if isinstance(one, kind)]
    return sorted(formats, key=lambda one: one.position)


def format_called(name: str, formats: Sequence[F], kind: str) -> F:
    """Raises UserError with the nearest name where no format has this one."""
    by_name = {one.name: one for one in formats}
    if name not in by_name:
        raise UserError(f"no {kind} format is called {name!r}; {nearest(name, by_name)}")
    return by_name[name]
