"""Commands called as `python -m nexttoken <command>` calls them, in this process."""

import signal
import sys
from collections.abc import Sequence
from importlib import import_module

from nexttoken.commands.arguments import run
from nexttoken.errors import UserError


def status_of(name: str, arguments: Sequence[str]) -> int:
    """The exit status of a command: 2 with one line on stderr for an error that its user can mend."""
    try:
        import_module(f"nexttoken.commands.{name}").main(arguments)
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def refusal(capsys, name: str, *arguments: object) -> str:
    """The one line on stderr of a command that stops with status 2, through the program's own error handling."""
    ended = signal.getsignal(signal.SIGTERM)
    capsys.readouterr()
    status: object = 0
    try:
        run(import_module(f"nexttoken.commands.{name}").main, "", [str(argument) for argument in arguments])
    except SystemExit as stopped:
        status = stopped.code
    finally:
        signal.signal(signal.SIGTERM, ended)
    lines = capsys.readouterr().err.splitlines()
    assert (status, len(lines)) == (2, 1), (status, lines)
    return lines[0]
