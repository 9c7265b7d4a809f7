"""Labelled rows made of the solved examples that a table's rows bring along, such as positive and negative ones."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from zlib import crc32

from nexttoken.data.near_duplicates import group_ids, normalise
from nexttoken.errors import UserError, nearest
from nexttoken.types import Example

CONVENTION = ("negative_example", "positive_example")  # beginnings of the columns of the first and the second class
OWN_KEYS = ("text", "by")  # of task.examples; the others are classes
EXPECTED = "{text: body, by: rule, '1': [positive_example_1], '0': [negative_example_1]}, or {} for none"
Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SolvedRow:
    """A row made of a solved example; `by` are its values in the columns that tell examples apart, besides the text.

    `sources` are the rows that show it, by file and id.
    """

    example: Example
    text: str
    by: Mapping[str, str]
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Shown:
    """A solved example where it stands: in a column of a row."""

    row: Example
    column: str
    label: int
    is_known: bool  # stands in a row that is asked: in the test file, or in a dev or held-out row

    @property
    def text(self) -> str:
        return self.row.fields[self.column][0]


@dataclass(frozen=True)
class SolvedExamples:
    """The columns of solved examples: `columns` maps each to its class, and `text` is the field that they stand for.

    Examples of the same text and the same values in the columns `by`, such as a rule, are one and the same.
    """

    text: str
    columns: Mapping[str, int]
    by: tuple[str, ...]

    @classmethod
    def of(
        cls, given: Any, fields: Sequence[str], classes: Sequence[str], texts: Sequence[str], by: Sequence[str]
    ) -> "SolvedExamples | None":
        """The columns by `task.examples`, or by convention; None where there are none.

        `texts` are the columns to choose the text from, `by` those of the metric. Raises UserError for other keys,
        and for columns and classes that the task does not have.
        """
        if given is None:
            given = {
                classes[label]: [name for name in fields if name.startswith(start)]
                for label, start in enumerate(CONVENTION)
                if len(classes) == len(CONVENTION)
            }
            if not given or not all(given.values()):
                return None
        if not isinstance(given, Mapping) or not all(
            isinstance(one, str | list | tuple | None) for one in given.values()
        ):
            raise UserError(f"task.examples={given!r} is not accepted: expected {EXPECTED}")
        columns: dict[str, int] = {}
        for value, names in cls._by_class(given):
            if twice := [name for name in names if name in columns]:
                raise UserError(f"task.examples names {twice[0]} for two classes; an example belongs to one")
            columns |= dict.fromkeys(names, cls._class(value, classes))
        if not columns:
            return None
        plain = [name for name in fields if name not in columns]
        text = str(given.get("text") or next((name for name in (*texts, *plain) if name in plain), ""))
        named = given.get("by") or [name for name in by if name != text and name not in columns]
        chosen = [named] if isinstance(named, str) else named or [name for name in plain if name != text]
        if unknown := [name for name in (text, *columns, *set(chosen).difference(by)) if name not in fields]:
            raise UserError(f"task.examples names {unknown[0]!r}, which is no field; {nearest(unknown[0], fields)}")
        return cls(text, columns, tuple(chosen))

    @staticmethod
    def _by_class(given: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
        for value, names in given.items():
            if value not in OWN_KEYS:
                yield str(value), [names] if isinstance(names, str) else [*map(str, names or ())]

    @staticmethod
    def _class(value: str, classes: Sequence[str]) -> int:
        if value not in classes:
            raise UserError(f"task.examples names the class {value!r}; {nearest(value, classes)}")
        return classes.index(value)

    def of_class(self, label: int) -> tuple[str, ...]:
        """The columns of a class."""
        return tuple(name for name, own in self.columns.items() if own == label)

    def key(self, row: Example, text: str) -> Key:
        """That by which two examples are the same: the text without case and punctuation, and the values of `by`."""
        return (normalise(text), *self._values(row).values())

    def _values(self, row: Example) -> dict[str, str]:
        return {name: row.fields[name][0] if name in row.fields else row.tags[name] for name in self.by}

    def rows(self, train: Sequence[Example], asked: Sequence[Example], test: Sequence[Example]) -> list[SolvedRow]:
        """The distinct solved examples of all rows, each as a row of its own with the label that most columns give it.

        `asked` are the dev and held-out rows, whose labels are not to be learnt: of examples (nearly) equal to the text
        of one, those are left out that only training rows show. So are ties, and what a training row says itself. The
        other columns are those of the first row that shows the example; `_shown_beside` says what takes its place.
        """
        known = [(row, True) for row in (*test, *asked)]
        found: dict[Key, list[_Shown]] = defaultdict(list)
        for row, is_known in [*known, *((row, False) for row in train)]:
            for column, label in self.columns.items():
                if (text := row.fields[column][0]).strip():
                    found[self.key(row, text)].append(_Shown(row, column, label, is_known))
        chosen = {key: first for key, shown in found.items() if (first := _of_majority(shown)) is not None}
        for key in [self.key(row, row.fields[self.text][0]) for row in train] + self._leaks(chosen, found, asked):
            chosen.pop(key, None)
        pools: dict[tuple[Key, int], list[str]] = defaultdict(list)
        for key, shown in chosen.items():
            pools[key[1:], shown.label].append(shown.text)
        return [self._made(shown, found[key], pools) for key, shown in chosen.items()]

    def _leaks(
        self, chosen: Mapping[Key, _Shown], found: Mapping[Key, Sequence[_Shown]], asked: Sequence[Example]
    ) -> list[Key]:
        """The keys of examples that only training rows show, with (nearly) the text of an asked row."""
        unknown = [key for key in chosen if not any(shown.is_known for shown in found[key])]
        texts = [chosen[key].text for key in unknown]
        if not texts or not asked:
            return []
        groups = group_ids([*texts, *(row.fields[self.text][0] for row in asked)])
        judged = {*groups[len(texts) :]}
        return [key for key, group in zip(unknown, groups, strict=False) if group in judged]

    def _made(self, shown: _Shown, found: Sequence[_Shown], pools: Mapping[tuple[Key, int], list[str]]) -> SolvedRow:
        row, text = shown.row, shown.text
        fields = {**row.fields, self.text: (text,), **self._shown_beside(shown, pools)}
        name = f"{row.tags.get('file', '')}#{row.id}#{shown.column}"
        example = replace(row, id=name, fields=fields, label=shown.label, votes=())
        sources = dict.fromkeys(f"{one.row.tags.get('file', '')}#{one.row.id}" for one in found)
        return SolvedRow(example, text, self._values(row), tuple(sources))

    def _shown_beside(self, shown: _Shown, pools: Mapping[tuple[Key, int], list[str]]) -> Mapping[str, tuple[str, ...]]:
        """The columns that show the example itself, with another one of their class in its place.

        An empty place would tell the label. Where there is no other one, as many of each class are left out.
        """
        texts = {column: normalise(shown.row.fields[column][0]) for column in self.columns}
        own = [column for column, text in texts.items() if text == normalise(shown.text)]
        filled: dict[str, tuple[str, ...]] = {}
        for column in own:
            pool = pools[self.key(shown.row, "")[1:], self.columns[column]]
            start = crc32(f"{shown.row.id} {column}".encode("utf-8", "surrogatepass")) % max(len(pool), 1)
            others = (text for text in [*pool[start:], *pool[:start]] if normalise(text) not in texts.values())
            if (other := next(others, None)) is None:
                return dict.fromkeys(self._as_many_of_each_class(own), ("",))
            filled[column], texts[column] = (other,), normalise(other)
        return filled

    def _as_many_of_each_class(self, own: Sequence[str]) -> list[str]:
        """The columns `own` and further ones, so that every class has as many among them."""
        most = max(Counter(self.columns[column] for column in own).values())
        by_own = sorted(self.columns, key=lambda column: column not in own)
        of_classes = ([c for c in by_own if self.columns[c] == label] for label in {*self.columns.values()})
        return [column for columns in of_classes for column in columns[:most]]


def _of_majority(shown: Sequence[_Shown]) -> _Shown | None:
    """The first example of the label that most of them have; None for a tie."""
    (label, most), *others = Counter(one.label for one in shown).most_common()
    if others and others[0][1] == most:
        return None
    return next(one for one in shown if one.label == label)
