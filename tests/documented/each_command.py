"""Each command of the pages ends without a traceback and with status 0, in a checkout of its page: make docs."""

import re
from itertools import groupby

import pytest

from documented.commands import Command, commands
from documented.exceptions import commands_before, reason_to_skip
from documented.scratch import Workplace
from support.fork_server import ForkServer

SHARED = re.compile(r"\.\./shared|jmmlu|jcommonsenseqa")
COMMANDS = {page: [*found] for page, found in groupby(commands(), key=lambda one: one.page)}


@pytest.fixture(scope="session")
def workplace(tmp_path_factory):
    with ForkServer() as server:
        yield Workplace(tmp_path_factory.mktemp("docs"), server)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", COMMANDS)
def test_the_commands_of_a_page_run(page: str, workplace, request, subtests) -> None:
    """In their order: later ones use what earlier ones made."""
    for command in COMMANDS[page]:
        with subtests.test(msg=command.text):
            run(command, workplace, request)


def run(command: Command, workplace: Workplace, request: pytest.FixtureRequest) -> None:
    if reason := reason_to_skip(command.text):
        pytest.skip(reason)
    if SHARED.search(command.typed):
        workplace.link_shared(request.getfixturevalue("shared_dir"))
    checkout = workplace.checkout(re.sub(r"\W", "_", command.page))
    for text in [*commands_before(command.text), command.typed]:
        checkout.prepare(text)
        status, words = checkout.call(text, command.variables)
        assert (status, "Traceback (most" in words) == (0, False), f"{text}\nstatus {status}\n{words[-4000:]}"
