"""The `python -m nexttoken` program: lists the commands, explains one (--help) and runs it."""

import ast
import sys
from importlib import import_module
from pathlib import Path

from nexttoken.commands.terminal import until_nobody_reads
from nexttoken.errors import nearest

COMMANDS_DIR = Path(__file__).parent / "commands"
HELP = {"-h", "--help"}


def commands() -> dict[str, str]:
    """Each command's name with its help text, the docstring of a module of commands/ that has a `main`.

    The modules are parsed and not imported, so that the list and every --help appear at once.
    """
    usages = {}
    for path in sorted(COMMANDS_DIR.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body):
            usages[path.stem] = ast.get_docstring(tree) or ""
    return usages


def main() -> None:
    """List the commands, or run the named one. An unknown name is one line with the nearest, and exit status 2."""
    with until_nobody_reads():
        _main()


def _main() -> None:
    name, *arguments = sys.argv[1:] or ["--help"]
    usages = commands()
    if name in HELP:
        width = max(map(len, usages))
        print("python -m nexttoken <command> [path ...] [key=value ...]\npython -m nexttoken <command> --help\n")
        print("\n".join(f"  {name:<{width}}  {usage.splitlines()[0]}" for name, usage in usages.items()))
        print("\npython train.py --help and python predict.py --help explain training and prediction.")
    elif name not in usages:
        print(f"no command is called {name!r}; {nearest(name, usages)}", file=sys.stderr)
        sys.exit(2)
    elif HELP & {*arguments}:
        print(usages[name])
    else:
        run_command(name, usages[name], arguments)


def run_command(name: str, usage: str, arguments: list[str]) -> None:
    """Import a command and run it; a package that it needs and that is not installed is one line, exit status 2."""
    try:
        from nexttoken.commands.arguments import run

        run(import_module(f"nexttoken.commands.{name}").main, usage, arguments)
    except ModuleNotFoundError as error:
        if (missing := str(error.name)).startswith("nexttoken"):
            raise
        print(f"the package {missing} is not installed; install all that are needed: pip install -e .", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
