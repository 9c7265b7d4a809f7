"""Solved questions shown before each question: the most similar of the training part, the most similar last."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from nexttoken.errors import UserError
from nexttoken.inference.once import Answerer, Inference, Once
from nexttoken.transforms.demonstrations import show_similar
from nexttoken.types import Example, LabelPredictions


@dataclass(frozen=True)
class FewShot(Inference):
    """Ask with demonstrations from the fold's training rows; neither its dev nor its held-out rows are ever shown."""

    needs: ClassVar[frozenset[str]] = frozenset({"labels"})

    num_demonstrations: int = 4
    ask: Inference = field(default_factory=Once)
    pool: tuple[Example, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if self.num_demonstrations < 1:
            raise UserError(f"inference.num_demonstrations={self.num_demonstrations}: expected at least 1")

    def __call__(self, examples: Sequence[Example], answer: Answerer) -> LabelPredictions:
        return self.ask(show_similar(examples, self.pool, self.num_demonstrations), answer)

    def views(self, examples: Sequence[Example], train: Sequence[Example]) -> list[Example]:
        return self.ask.views(show_similar(examples, train, self.num_demonstrations), train)

    def fitted(self, train: Sequence[Example], dev: Sequence[Example], answer: Answerer) -> Inference:
        shown = replace(self, pool=tuple(example for example in train if example.label is not None))
        return replace(
            shown, ask=self.ask.fitted(train, show_similar(dev, shown.pool, self.num_demonstrations), answer)
        )

    def state(self) -> dict[str, Any]:
        rows = [{"id": one.id, "fields": dict(one.fields), "label": one.label} for one in self.pool]
        return {"demonstrations": rows, **self.ask.state()}

    def restored(self, state: Mapping[str, Any]) -> Inference:
        rows = (
            Example(row["id"], {name: tuple(turns) for name, turns in row["fields"].items()}, row["label"])
            for row in state["demonstrations"]
        )
        return replace(self, pool=tuple(rows), ask=self.ask.restored(state))
