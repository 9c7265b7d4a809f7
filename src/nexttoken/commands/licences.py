"""Lists the licence of every installed package, and names those that are not permissive or state none.

python -m nexttoken licences

The licences are those that the packages state of themselves. Data inside a package may have another one:
docs/licences.md. The NVIDIA packages that torch brings on a machine with a GPU are NVIDIA's own, and not open source.
"""

import re
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, distributions
from typing import Any

from nexttoken.commands.arguments import Arguments
from nexttoken.errors import visible

PERMISSIVE = re.compile(
    r"apache|\b[023]?-?bsd|\bmit\b|\bisc\b|\bpsf|python software foundation|\bzlib|\bcc0|unlicense|\bhpnd|cnri-python",
    re.IGNORECASE,
)
CONDITIONED = re.compile(
    r"gpl|general public|mpl|mozilla|artistic|eclipse|\bepl|cddl|eupl|cc-by-(sa|nc)|proprietary|licenseref|nvidia",
    re.IGNORECASE,
)
MAX_CHARACTERS = 60  # of a licence's name: a longer line is no name


class LicencesArguments(Arguments):
    """None: every installed package is listed."""


def main(arguments: Sequence[str]) -> None:
    LicencesArguments.parse(arguments)
    found = sorted(packages(), key=lambda one: one[0].lower())
    widths = [max(len(one[column]) for one in found) for column in (0, 1)]
    for name, version, licence in found:
        print(visible(f"{name:<{widths[0]}}  {version:<{widths[1]}}  {licence or 'no statement'}"))
    silent = [name for name, _, licence in found if not licence]
    others = [f"{name} ({licence})" for name, _, licence in found if licence and not is_permissive(licence)]
    print(f"\n{len(found)} packages, {len(found) - len(silent) - len(others)} of them permissive")
    print(visible(f"not permissive, or not known here: {', '.join(others) or 'none'}"))
    print(visible(f"without a statement: {', '.join(silent) or 'none'}"))


def packages() -> Iterator[tuple[str, str, str]]:
    """Name, version and licence of each installed package; the first of a name is the one that Python imports."""
    seen = set()
    for one in distributions():
        name = one.metadata["Name"]
        if name not in seen:
            seen.add(name)
            yield name, one.version, licence_of(one)


def licence_of(package: Distribution) -> str:
    """The licence that a package states: its expression, else a known name, else its classifiers; "" for none."""
    metadata: Any = package.metadata
    if expression := metadata.get("License-Expression"):
        return str(expression)
    name = next(iter(str(metadata.get("License", "")).split("\n")), "").strip()  # of a whole text its heading
    kinds = (one for one in metadata.get_all("Classifier", []) if one.startswith("License ::"))
    classified = "; ".join(kind.rpartition(" :: ")[2] for kind in kinds)
    is_known = PERMISSIVE.search(name) or CONDITIONED.search(name)
    return name if is_known and len(name) <= MAX_CHARACTERS else classified


def is_permissive(licence: str) -> bool:
    """True where one of the licences to choose from is permissive as a whole; for an unknown one False."""
    choices = re.split(r"\bOR\b|;", licence)
    return any(PERMISSIVE.search(one) and not CONDITIONED.search(one) for one in choices)
