"""Jinja templates in a sandbox that ends them at a limit of steps, seconds, memory and characters.

Chat templates come with models, so they are strangers' programs: a loop or a recursive macro must not keep a run busy.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Template, TemplateSyntaxError, nodes, pass_context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from nexttoken.errors import UserError, one_line

MAX_STEPS = 200_000  # passes of loops, calls of macros and items of lists in one rendering, beyond its characters
MAX_SECONDS = 10.0
MAX_CHARACTERS = 10_000_000  # of a rendered text, beyond 10 times its input
MAX_BYTES = 2**30  # that a template's first rendering may add to the process
MAX_EXPONENT = 1_000
STATUS = Path("/proc/self/statm")


class LimitError(Exception):
    """A template that goes beyond a limit."""


class Sandbox(ImmutableSandboxedEnvironment):
    """An environment that counts the steps of loops, macros and lists, and keeps products of numbers small."""

    intercepted_binops = frozenset({"*", "**"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._counts = threading.local()
        self.filters |= {"count_step": self._count_step, "count_items": self._count_items}
        self.globals["dict"] = lambda *args, **values: self._count_items(None, dict(*args, **values))

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        return Counted().visit(super()._parse(source, name, filename)).set_environment(self)

    def start(self, num_characters: int) -> None:
        self._counts.left, self._counts.deadline = MAX_STEPS + num_characters, time.monotonic() + MAX_SECONDS

    @pass_context
    def _count_step(self, context: Any, value: Any, number: int = 1) -> Any:
        """Return `value`. Raises LimitError after MAX_STEPS or MAX_SECONDS of one rendering."""
        counts = self._counts
        counts.left -= number
        if counts.left < 0:
            raise LimitError(f"takes more than {MAX_STEPS:,} steps for one prompt")
        if counts.left % 64 == 0 and time.monotonic() > counts.deadline:
            raise LimitError(f"takes more than {MAX_SECONDS:g} seconds for one prompt")
        return value

    @pass_context
    def _count_items(self, context: Any, value: Any) -> Any:
        """Return the list or mapping; its items are counted, those of lists inside it, too."""
        waiting = [value]
        while waiting:
            one = waiting.pop()
            inner = one.values() if isinstance(one, dict) else one if isinstance(one, list | tuple) else ()
            self._count_step(context, None, len(inner))
            waiting += inner
        return value

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        numbers = [abs(number).bit_length() for number in (left, right) if isinstance(number, int)]
        if sum(numbers) > 128 or (operator == "**" and isinstance(right, int) and abs(right) > MAX_EXPONENT):
            raise LimitError("multiplies very large numbers")
        return super().call_binop(context, operator, left, right)


class Counted(NodeTransformer):
    """Lets every pass of a loop, call of a macro, and list that a template writes go through a counting filter."""

    def _visit_body(self, node: Any) -> nodes.Node:
        node = self.generic_visit(node)
        count = nodes.Filter(nodes.Const(True), "count_step", [], [], None, None)
        if getattr(node, "test", None) is not None:  # the body of such a loop sees the chosen items only
            node.test = nodes.And(count, node.test)
        else:
            node.body.insert(0, nodes.If(nodes.Not(count), [], [], []))
        return node

    def _visit_items(self, node: Any) -> nodes.Node:
        node = self.generic_visit(node)
        is_target = getattr(node, "ctx", "load") != "load"
        return node if is_target else nodes.Filter(node, "count_items", [], [], None, None)

    visit_For = visit_Macro = visit_CallBlock = _visit_body
    visit_List = visit_Tuple = visit_Dict = _visit_items


@dataclass
class SafeTemplate:
    """A compiled template; `name` is its name in messages."""

    name: str
    compiled: Template
    first: bool = field(default=True, init=False)

    def render(self, context: Mapping[str, Any], num_characters: int) -> str:
        """The text for `context`, an input of `num_characters`. Raises LimitError, and whatever the template raises."""
        environment = self.compiled.environment
        assert isinstance(environment, Sandbox)
        environment.start(num_characters)
        try:
            if not self.first:
                text = self.compiled.render(context)
            else:
                with bounded_memory():
                    text = self.compiled.render(context)
                self.first = False
        except MemoryError:
            raise LimitError(f"needs more than {MAX_BYTES // 2**30} GiB of memory for one prompt") from None
        except RecursionError:
            raise LimitError("calls itself without an end") from None
        if len(text) > MAX_CHARACTERS + 10 * num_characters:
            raise LimitError(f"writes {len(text):,} characters for one prompt")
        return text


def compile_template(name: str, source: str, environment: Sandbox) -> SafeTemplate:
    """Raises UserError for a template with a syntax error, or beyond a limit."""
    try:
        with bounded_memory():  # jinja2 computes constants here
            return SafeTemplate(name, environment.from_string(source))
    except TemplateSyntaxError as error:
        line = f"{name} has an error in line {error.lineno}: {one_line(error.message)}"
    except RecursionError:
        line = f"{name} is nested too deeply"
    except MemoryError:
        line = f"{name} needs more than {MAX_BYTES / 2**30:g} GiB of memory"
    except ValueError as error:  # Python reads no number of thousands of digits
        line = f"{name} cannot be read: {one_line(error)}"
    raise UserError(line)


@contextmanager
def bounded_memory() -> Iterator[None]:
    """A context in which the process may take MAX_BYTES more of address space; no limit where it cannot be read."""
    if not STATUS.exists():
        yield
        return
    import resource  # which other systems than Linux may lack

    used = int(STATUS.read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    known = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min([used + MAX_BYTES, *known]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
