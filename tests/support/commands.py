"""Commands called as `python -m nexttoken <command>` calls them, in this process."""

import sys
from collections.abc import Sequence
from importlib import import_module

from nexttoken.errors import UserError


def status_of(name: str, arguments: Sequence[str]) -> int:
    """The exit status of a command: 2 with one line on stderr for an error that its user can mend."""
    try:
        import_module(f"nexttoken.commands.{name}").main(arguments)
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0
