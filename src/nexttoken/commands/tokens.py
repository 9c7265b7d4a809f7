"""Count the tokens that each variant of an open task learns from, by speaker.

python -m nexttoken tokens output/dialogue/*

Arguments:
  path ...          run folders, or folders of runs
  out=...           folder for tokens.md and tokens.png (default: <output>/judge/<task>)
  published=true    add the counts of nine published variants
"""

from collections.abc import Sequence
from pathlib import Path

from nexttoken.commands.arguments import Arguments
from nexttoken.report.terminal import show
from nexttoken.report.tokens import token_report


class TokensArguments(Arguments):
    paths: tuple[Path, ...]
    out: Path | None = None
    published: bool = False


def main(arguments: Sequence[str]) -> None:
    given = TokensArguments.parse(arguments)
    show(token_report(given.paths, given.out, given.published))
