"""The small commands' side of the terminal: `key=value` arguments in, one-line errors with exit status 2 out."""

import logging
import signal
import sys
from collections.abc import Callable, Mapping, Sequence

from nexttoken.errors import UserError, nearest
from nexttoken.models.allocator import keep_freed_memory


def key_values(arguments: Sequence[str], defaults: Mapping[str, str]) -> dict[str, str]:
    """Return `defaults` with the values that `arguments` give; raise UserError for a key that is not among them."""
    values = dict(defaults)
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key not in defaults:
            raise UserError(f"unknown argument {argument!r}, expected key=value; {nearest(key, defaults)}")
        if not value:
            raise UserError(f"argument {argument!r} has no value; write {key}={defaults[key] or '...'}")
        values[key] = value
    return values


def run(command: Callable[[Sequence[str]], None], usage: str, arguments: Sequence[str] | None = None) -> None:
    """Call `command` with `arguments` (None: sys.argv); print `usage` for --help, and a UserError as its one line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    keep_freed_memory()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.root.handlers[0].setLevel(logging.INFO)  # whatever level a library gives its own logger
    if {"-h", "--help"} & {*arguments}:
        print(usage.strip())
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that an ended command removes its hidden folders
    try:
        command(arguments)
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def whole_number(key: str, text: str, default: str, low: int, high: int) -> int:
    """Raises UserError for anything but a whole number from `low` to `high`."""
    if not text.isascii() or not text.isdecimal() or not low <= int(text) <= high:
        raise UserError(f"{key}={text} is no whole number from {low} to {high}; write {key}={default}")
    return int(text)
