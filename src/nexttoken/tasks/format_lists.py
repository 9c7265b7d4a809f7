"""File formats found by listing a folder: each module of it adds the formats of its tuple FORMATS."""

import sys
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, Generic, TypeVar

from nexttoken.errors import UserError, nearest


class FileFormat:
    """A format with a name; those with a lower position are tried first on a file."""

    name: str
    position: int = 0


F = TypeVar("F", bound=FileFormat)


@dataclass(frozen=True)
class FormatList(Generic[F]):
    """The formats of the modules of `package` that are a `base`; `kind` names them in errors."""

    package: str
    base: Any  # a subclass of FileFormat, which may be abstract
    kind: str

    def all(self) -> list[F]:
        """Return the formats in the order in which they are tried on a file."""
        modules = [
            import_module(f"{self.package}.{one.name}") for one in iter_modules(sys.modules[self.package].__path__)
        ]
        formats = [one for module in modules for one in getattr(module, "FORMATS", ()) if isinstance(one, self.base)]
        return sorted(formats, key=lambda one: one.position)

    def named(self, name: str) -> F:
        """Raises UserError with the nearest name where no format has this one."""
        by_name = {one.name: one for one in self.all()}
        if name not in by_name:
            raise UserError(f"no {self.kind} format is called {name!r}; {nearest(name, by_name)}")
        return by_name[name]

    def unknown(self, path: object, reason: str) -> UserError:
        """Return the error for a file in none of the formats."""
        names = ", ".join(one.name for one in self.all())
        return UserError(f"{path} is in no {self.kind} format that is known here ({names}){reason}")
