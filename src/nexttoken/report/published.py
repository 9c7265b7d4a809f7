"""Results that others published, read from the YAML files beside this module, so that a run can stand beside them."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from nexttoken.report.markdown import markdown

KINDS = ("zero-shot CV", "CV", "public LB", "private LB")


@dataclass(frozen=True, slots=True)
class PublishedScore:
    """A self-reported three-class log loss of the preference competition; `kind` is one of `KINDS`."""

    who: str
    what: str
    score: float
    kind: str

    @property
    def comparable(self) -> bool:
        """Whether it compares with an out-of-fold log loss on the competition's own data; on other data none does."""
        return self.kind.endswith("CV")


@cache
def read_published(name: str) -> Any:
    """The content of published_<name>.yaml: scores, quiz or variants."""
    return yaml.safe_load(Path(__file__).with_name(f"published_{name}.yaml").read_text(encoding="utf-8"))


def published_scores() -> list[PublishedScore]:
    return [PublishedScore(**row) for row in read_published("scores")]


def predicted_leaderboard(cv: float) -> float:
    """The public leaderboard score that James Day's line predicts for a CV log loss on the competition's data."""
    return 0.890 * cv + 0.125


def published_quiz_tables() -> str:
    """Tables of fine-tuned Japanese models on a quiz by genre, in their published form, best first."""
    intro = (
        "## Published scores of another quiz\n\nFine-tuned models on QMA questions, self-reported with one environment "
        "a genre (dev5 to dev9): other questions and machines. None is comparable with the runs above."
    )
    parts, quiz = [intro], read_published("quiz")
    for place, (genre, environment) in enumerate(quiz["genres"].items()):
        results = sorted(((model, *by_genre[place]) for model, by_genre in quiz["models"].items()), key=lambda r: -r[1])
        rows = [[model, environment, f"{score:.4f}", f"{seconds:.0f}"] for model, score, seconds in results]
        table = markdown(["Model", "Environment", "Score", "Latency"], rows)
        parts += [f"### Published table for genre: {genre}", table]
    return "\n\n".join(parts)
