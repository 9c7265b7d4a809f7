"""The space of a search: Hydra's sweep grammar as distributions of Optuna."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from nexttoken.commands.grid import num_values
from nexttoken.errors import UserError
from nexttoken.report.setting_plots import Axis

NOT_SEARCHED = {
    "name": "runs are named after their settings; give one name",
    "output_dir": "give one folder",
    "seed": "a seed is no better than another one; sweep.seeds=3 trains the best and the default with three",
}
FORMS = "choice(a,b) or a,b, range(1,10), interval(0.1,0.5), int(interval(8,64)), tag(log,interval(1e-5,1e-3))"
MAX_END = 2**53  # of an interval or a range: a float, in which Optuna reckons, holds every whole number up to it
MAX_VALUES = 10_000  # of a range
SIGNIFICANT_DIGITS = 4  # of a drawn number: more tell nothing, and make names of runs long


@dataclass(frozen=True)
class Dimension:
    """A searched setting: its distribution, and of a choice the plain value of each of its texts."""

    key: str
    distribution: Any
    values: Mapping[str, Any]

    def of(self, value: Any) -> Any:
        """The value as a parameter of a trial; None where it is outside."""
        if self.values:
            return next((text for text, own in self.values.items() if own == value and type(own) is type(value)), None)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return value if is_number and self.distribution.low <= value <= self.distribution.high else None

    @property
    def examples(self) -> list[Any]:
        """Values that the setting must accept: all choices, or a number between the ends."""
        if self.values:
            return [*self.values]
        low, high, step = (getattr(self.distribution, name) for name in ("low", "high", "step"))
        return [low if step is not None else self.rounded(low + 0.382 * (high - low))]

    @property
    def axis(self) -> Axis:
        """Its axis in a picture."""
        if self.values:
            return Axis(self.key, tuple(self.values))
        return Axis(self.key, (), self.distribution.low, self.distribution.high, self.distribution.log)

    def rounded(self, value: Any) -> Any:
        """A drawn value with few digits, within the ends."""
        if self.values or isinstance(value, int) or self.distribution.step is not None:
            return value
        short = float(f"{value:.{SIGNIFICANT_DIGITS}g}")
        return min(max(short, self.distribution.low), self.distribution.high)


@dataclass(frozen=True)
class Space:
    """The overrides of all trials, the searched settings by key, and the folds of a trial."""

    fixed: tuple[str, ...]
    dimensions: Mapping[str, Dimension]
    folds: tuple[int, ...]

    @property
    def distributions(self) -> dict[str, Any]:
        return {key: one.distribution for key, one in self.dimensions.items()}

    def rounded(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return {key: self.dimensions[key].rounded(value) for key, value in params.items()}

    @property
    def examples(self) -> list[dict[str, Any]]:
        """Parameters of trials that try each of the dimensions' `examples`."""
        first = {key: one.examples[0] for key, one in self.dimensions.items()}
        others = ((key, value) for key, one in self.dimensions.items() for value in one.examples[1:])
        return [first, *({**first, key: value} for key, value in others)]

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """Those of a trial, without its fold."""
        return [*self.fixed, *(f"{key}={value}" for key, value in params.items())]


def space_of(overrides: Iterable[Any], folds: Sequence[int], own: Container[str] = ()) -> Space:
    """The space of parsed overrides (Hydra's `Override`), of which a later one replaces an earlier one of its key.

    `folds` are those of a trial unless the overrides name some, and `own` are keys that are none of a trial. Raises
    UserError for a form that cannot be searched.
    """
    last = {one.get_key_element(): one for one in overrides}
    kept = {key: one for key, one in last.items() if key not in own}
    if fold := kept.pop("fold", None):
        folds = folds_of(fold)
    swept = {key: one for key, one in kept.items() if one.is_sweep_override()}
    if not swept:
        raise UserError(f"there is nothing to search; give settings several values, such as key={FORMS}")
    if len(set(folds)) < len(folds) or not folds:
        raise UserError(f"the folds of a trial are {list(folds)}; give each once, such as fold=0,1,2")
    fixed = tuple(f"{key}={one.get_value_element_as_str()}" for key, one in kept.items() if key not in swept)
    return Space(fixed, {key: dimension_of(key, one) for key, one in swept.items()}, tuple(folds))


def folds_of(override: Any) -> list[int]:
    """The folds of `fold=0` or `fold=0,1,2`. Raises UserError for others, such as fold=all, which has no score."""
    given = override.value()
    folds = [given] if not override.is_sweep_override() else [*getattr(given, "list", ())]
    if not folds or not all(type(fold) is int and fold >= 0 for fold in folds):
        raise UserError(f"{override.input_line}: a trial is scored on its folds; give numbers, such as fold=0,1,2")
    return folds


def dimension_of(key: str, override: Any) -> Dimension:
    """The dimension of an override with several values. Raises UserError for one that cannot be searched."""
    given, typed = override.value(), override.input_line
    tags: set[str] = getattr(given, "tags", set())
    if fix := NOT_SEARCHED.get(key.lstrip("+")):
        raise UserError(f"{typed} cannot be searched: {fix}")
    if getattr(given, "shuffle", False):
        raise UserError(f"{typed}: a search draws its values in an order of its own; leave shuffle out")
    if tags - {"log"} or (tags and not override.is_interval_sweep()):
        raise UserError(f"{typed}: the only tag is log, of an interval; the forms are {FORMS}")
    if override.is_interval_sweep():
        return Dimension(key, _interval(given.start, given.end, bool(tags), typed), {})
    if override.is_range_sweep():
        return Dimension(key, _range(given, typed), {})
    from optuna.distributions import CategoricalDistribution

    num_values(override)
    texts = [*override.sweep_string_iterator()]
    values = dict(zip(texts, getattr(given, "list", texts), strict=True))
    return Dimension(key, CategoricalDistribution(tuple(values)), values)


def _interval(low: float, high: float, is_log: bool, typed: str) -> Any:
    from optuna.distributions import FloatDistribution, IntDistribution

    _refuse_far((low, high), typed)
    if low >= high:
        raise UserError(f"{typed}: the first end of an interval must be below the second")
    if is_log and low <= 0:
        raise UserError(f"{typed}: on a logarithmic scale both ends must be above 0")
    kind: Any = IntDistribution if isinstance(low, int) else FloatDistribution
    return kind(low, high, log=is_log)


def _range(given: Any, typed: str) -> Any:
    """The numbers of a range as Hydra counts them: its stop is not one of them."""
    from optuna.distributions import FloatDistribution, IntDistribution

    _refuse_far((given.start, given.stop), typed)
    numbers, step = sorted(islice(given.range(), MAX_VALUES + 1)), abs(given.step)
    if len(numbers) < 2:
        raise UserError(f"{typed} has {len(numbers)} values; the end of range(start,stop,step) is left out")
    if len(numbers) > MAX_VALUES:
        raise UserError(f"{typed} has more than {MAX_VALUES:,} values; use int(interval(...)) or interval(...)")
    kind = IntDistribution if all(isinstance(number, int) for number in numbers) else FloatDistribution
    return kind(numbers[0], numbers[-1], step=step)


def _refuse_far(ends: tuple[float, float], typed: str) -> None:
    """Raise UserError for an end that is infinite, no number, or too large to be told from its neighbours."""
    if not all(abs(end) <= MAX_END for end in ends):
        raise UserError(f"{typed}: expected ends from {-MAX_END:,} to {MAX_END:,}")
