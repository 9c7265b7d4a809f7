"""The one rule for input that nobody can trust: it is taken, or refused in one line that names it, within seconds."""

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO

from nexttoken.commands.terminal import fault_of_machine
from nexttoken.errors import MAX_CHARACTERS, UserError

MAX_SECONDS = 10.0  # of the processor, for one input

TABLE = "\nlabel  "  # of the labels' tokens, the one thing that stands below a refusal


class BrokenRule(AssertionError):
    """An input that was neither taken nor refused as the rule says."""


def obey(
    work: Callable[[], object],
    *names: str,
    refused_by: tuple[type[Exception], ...] = (UserError,),
    max_seconds: float = MAX_SECONDS,
) -> bool:
    """Call `work`; return True where it takes its input, False where it refuses it by an error of `refused_by`.

    Raises BrokenRule for any other error, for a refusal of several lines, too long, or with none of `names` in it, and
    for work that takes more than `max_seconds` of the processor.
    """
    try:
        with quiet(), within(max_seconds):
            work()
            return True
    except refused_by as error:
        shown = fault_of_machine(error) or str(error)
        if fault := fault_of(shown, names):
            raise BrokenRule(fault) from error
        return False
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic of a Rust library is no Exception
        raise BrokenRule(f"{type(error).__name__}: {error}") from error


def fault_of(refusal: str, names: tuple[str, ...] = ()) -> str:
    """A sentence on what is wrong with a refusal, "" for a good one."""
    line = refusal.partition(TABLE)[0]
    if "\n" in line:  # other line ends are escaped where a refusal is shown
        return f"several lines: {line}"
    if not line.strip():
        return "a refusal without words"
    if len(line) > MAX_CHARACTERS:
        return f"a refusal of {len(line):,} characters: {line}"
    if names and not any(name in line for name in names):
        return f"none of {', '.join(names)} in: {line}"
    return ""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """A context that raises TimeoutError after so many seconds of the processor."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"not done within {seconds} seconds")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@contextmanager
def quiet() -> Iterator[None]:
    """A context without output: lines with halves of characters would not pass from one test process to the other."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            yield
    finally:
        logging.disable(disabled)
