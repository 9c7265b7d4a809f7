"""What the terminal shows of a configuration: a coloured tree, or plain YAML where there is no terminal."""

import sys
from collections.abc import Mapping
from typing import Any

from nexttoken.data.files import to_yaml


def show_config(config: Mapping[str, Any]) -> None:
    """Print the resolved configuration, one line per value."""
    if not sys.stdout.isatty():
        print(to_yaml(config), end="")
        return
    from rich import print as rich_print
    from rich.tree import Tree

    tree = Tree("config", guide_style="dim")
    _grow(tree, config)
    rich_print(tree)


def _grow(tree: Any, node: Mapping[str, Any]) -> None:
    from rich.markup import escape

    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            _grow(tree.add(f"[bold]{escape(str(key))}[/bold]"), value)
        else:
            tree.add(f"{escape(str(key))}: [green]{escape(repr(value))}[/green]")
