"""Count how much of the known noise a curation removed.

python -m benchmarks.curation_noise.score truth=output/noisy/truth.jsonl curated=output/curated/train.jsonl
"""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from benchmarks.curation_noise.noise import COPIES
from nexttoken.commands.arguments import Arguments, run
from nexttoken.report.markdown import markdown

JsonLinesPath = Annotated[Path, Field(examples=["<file of JSON lines>"])]
MAX_IDS = 5  # ids shown of each kind


@dataclass(frozen=True)
class KindScore:
    """Rows of one kind: their number, the number removed, and the first ids that were wrongly removed or kept."""

    num_rows: int
    num_removed: int
    wrong: tuple[str, ...]


def score(truth: Iterable[Mapping[str, str]], kept: Collection[str]) -> dict[str, KindScore]:
    """The score of every kind of row, "clean" first.

    A curation keeps one of a row and its copies, whichever comes first. So a copy counts as removed when it or its
    original is gone, and a clean row counts as removed only when its copies are gone as well.
    """
    truth, copies = list(truth), defaultdict[str, list[str]](list)
    for row in truth:
        if row["kind"] in COPIES:
            copies[row["of"]].append(row["id"])
    removed = defaultdict[str, dict[str, bool]](dict)
    for row in truth:
        row_id, kind = row["id"], row["kind"]
        if kind in COPIES:
            removed[kind][row_id] = row_id not in kept or row["of"] not in kept
        else:
            removed[kind][row_id] = not any(same in kept for same in (row_id, *copies[row_id]))
    results = {}
    for kind in sorted(removed, key=lambda kind: (kind != "clean", kind)):
        wrong = [row_id for row_id, is_removed in removed[kind].items() if is_removed == (kind == "clean")]
        results[kind] = KindScore(len(removed[kind]), sum(removed[kind].values()), tuple(wrong[:MAX_IDS]))
    return results


def table(results: Mapping[str, KindScore]) -> str:
    """Markdown: one line per kind."""
    rows = []
    for kind, one in results.items():
        share = f"{one.num_removed / one.num_rows:.2%}"
        rows.append([kind, f"{one.num_rows:,}", f"{one.num_removed:,}", share, " ".join(one.wrong)])
    return markdown(["kind", "rows", "removed", "share", "wrongly removed or kept"], rows)


def read_lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


class ScoreArguments(Arguments):
    truth: JsonLinesPath
    curated: JsonLinesPath


def main(arguments: Sequence[str]) -> None:
    given = ScoreArguments.parse(arguments)
    kept = {row["id"] for row in read_lines(given.curated)}
    print(table(score(read_lines(given.truth), kept)))


if __name__ == "__main__":
    run(main, __doc__)
