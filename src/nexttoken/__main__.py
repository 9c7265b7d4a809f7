"""The one door: `python -m nexttoken` lists every command, `python -m nexttoken <command> --help` explains one."""

import ast
import sys
from importlib import import_module
from pathlib import Path

from nexttoken.errors import nearest

COMMANDS_DIR = Path(__file__).parent / "commands"
HELP = {"-h", "--help"}


def commands() -> dict[str, str]:
    """Each command's name with its docstring: every file or folder of commands/ that has a `main`.

    They are read and not imported, so that the list and every --help appear at once.
    """
    found = {}
    for path in sorted([*COMMANDS_DIR.glob("*.py"), *COMMANDS_DIR.glob("*/__init__.py")]):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body):
            name = path.parent.name if path.name == "__init__.py" else path.stem
            found[name] = ast.get_docstring(tree) or ""
    return dict(sorted(found.items()))


def overview(known: dict[str, str]) -> str:
    """The list of commands as the terminal shows it: a line each."""
    width = max(map(len, known))
    lines = [f"  {name:<{width}}  {usage.partition(chr(10))[0]}" for name, usage in known.items()]
    head = "python -m nexttoken <command> [key=value ...]; <command> --help explains one. The commands:"
    tail = "python train.py --help and python predict.py --help explain training and prediction."
    return "\n".join([head, "", *lines, "", tail])


def main() -> None:
    """Run the named command. An unknown one is one line with the nearest name, and exit status 2."""
    name, *arguments = sys.argv[1:] or ["--help"]
    known = commands()
    if name in HELP:
        print(overview(known))
    elif name not in known:
        print(f"no command is called {name!r}; {nearest(name, known)}", file=sys.stderr)
        sys.exit(2)
    elif HELP & {*arguments}:
        print(known[name].strip())
    else:
        from nexttoken.commands.arguments import run

        run(import_module(f"nexttoken.commands.{name}").main, known[name], arguments)


if __name__ == "__main__":
    main()
