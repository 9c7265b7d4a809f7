"""The tokens that each variant learns from, by speaker: a table and a histogram.

python -m nexttoken tokens output/dialogue/*      run folders, or folders of runs

out=...           folder for tokens.md and tokens.png; <output>/judge/<task>
published=true    also the counts of nine published variants
"""

from collections.abc import Sequence
from pathlib import Path

from nexttoken.commands.arguments import Arguments
from nexttoken.report.tokens import token_report


class TokensArguments(Arguments):
    paths: tuple[Path, ...]
    out: Path | None = None
    published: bool = False


def main(arguments: Sequence[str]) -> None:
    """Print the table; write tokens.md and tokens.png."""
    given = TokensArguments.parse(arguments)
    print(token_report(given.paths, given.out, given.published))
