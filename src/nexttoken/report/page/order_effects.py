"""Position and length bias of pairs: what each side is expected to win, and what it wins, by the gap in length."""

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from nexttoken.report.markdown import digits_for
from nexttoken.report.page.both_orders import BothOrders
from nexttoken.report.page.outcome import Measured, Outcome, measured_sums
from nexttoken.report.page.section import interval, number
from nexttoken.report.page.svg import Axis, Plot
from nexttoken.report.page.text_parts import Texts
from nexttoken.types import Swap

ALL = "all pairs"
RATIOS = (0.5, 0.9, 1.1, 2.0)  # of the first answer's length to the second's, between the gaps below
GAPS = ("less than half as long", "shorter", "about as long", "longer", "more than twice as long")


@dataclass(frozen=True)
class SideShares:
    """Pairs whose first answer is by so much longer: the probability and the share of wins of either side."""

    gap: str
    count: int
    first_expected: Measured
    first_share: Measured
    first_excess: Measured  # what is expected less what is
    second_expected: Measured
    second_share: Measured
    second_excess: Measured
    lead: Measured  # the first answer's excess less the second's: above 0 where the first one is favoured


@dataclass(frozen=True)
class OrderEffects:
    """The shares of all pairs, then by gap in length, with a picture and what they say."""

    sides: list[SideShares]
    flips: list[Measured]  # of each of `sides`: the share whose decision changes with the order; [] where not known
    picture: Markup | None
    sentences: list[str]


def order_effects(outcome: Outcome, swap: Swap, texts: Texts, both: BothOrders | None = None) -> OrderEffects | None:
    """The bias of a run that decides between two answers; None where no class belongs to one of them."""
    partners = np.arange(len(outcome.names)) - np.array(swap.classes)
    if not partners.any():
        return None
    members = {ALL: np.ones(len(outcome.labels), dtype=bool)} | _by_gap(outcome, texts)
    flags = np.stack([*members.values()], axis=1).astype(np.float64)
    tables, sides = [flags], []
    for is_side in (partners < 0, partners > 0):
        sides.append((outcome.probs[:, is_side].sum(axis=1), is_side[outcome.labels].astype(np.float64)))
    lead = sides[0][0] - sides[1][0], sides[0][1] - sides[1][1]
    tables += [flags * one[:, None] for pair in (*sides, lead) for one in pair]
    columns = measured_sums(tables, outcome.groups, _shares)
    counts = flags.sum(axis=0).astype(int).tolist()
    shares = [SideShares(*values) for values in zip(members, counts, *columns[:6], columns[8], strict=True)]
    sentences = [_side_sentence(shares[0])]
    if len(shares) > 1:
        sentences.append(_length_sentence(outcome, members, partners))
    flips = _flips(outcome, flags, both) if both else []
    if flips:
        sentences.append(_flip_sentence(flips[0]))
    return OrderEffects(shares, flips, _picture(shares[1:]) if len(shares) > 2 else None, sentences)


def _by_gap(outcome: Outcome, texts: Texts) -> dict[str, np.ndarray]:
    places = texts.find(outcome.ids)
    if places is None:
        return {}
    lengths = np.array([[len(answer) for answer in texts.answers[place]] for place in places])
    gaps = np.searchsorted(RATIOS, (lengths[:, 0] + 1) / (lengths[:, 1] + 1))
    return {name: gaps == place for place, name in enumerate(GAPS) if (gaps == place).any()}


def _shares(number: np.ndarray, *sums: np.ndarray) -> list[np.ndarray]:
    """Of each two sums, what is expected and what is: both as shares of `number`, and their difference."""
    pairs = zip(sums[::2], sums[1::2], strict=True)
    return [one for expected, wins in pairs for one in (expected / number, wins / number, (expected - wins) / number)]


def _flips(outcome: Outcome, flags: np.ndarray, both: BothOrders) -> list[Measured]:
    known = np.isfinite(both.straight + both.swapped).all(axis=1)
    tables = [flags * one[:, None] for one in (known, both.flips)]
    return measured_sums(tables, outcome.groups, lambda number, flips: [flips / number])[0]


def _flip_sentence(every: Measured) -> str:
    digits = digits_for(every.interval)
    return (
        f"With the answers in the other order the decision is another one for {number(every.value, digits)} of the"
        f" pairs (95 % interval {interval(every.interval, digits)}): place decides these, not what they say."
    )


def _side_sentence(own: SideShares) -> str:
    digits = digits_for(own.lead.interval)
    verdict = "No position bias to be seen"
    if own.lead.is_sure:
        verdict = f"The {'first' if own.lead.value > 0 else 'second'} answer is favoured for its place"
    return (
        f"{verdict}: the first answer is expected to win with {own.first_expected.value:.3f} and wins"
        f" {own.first_share.value:.3f}, the second with {own.second_expected.value:.3f} and wins"
        f" {own.second_share.value:.3f}. The first one's lead is off by {number(own.lead.value, digits, True)} (95 %"
        f" interval {interval(own.lead.interval, digits, True)})."
    )


def _length_sentence(outcome: Outcome, members: dict[str, np.ndarray], partners: np.ndarray) -> str:
    """The longer answers of pairs that differ by more than a tenth."""
    none = np.zeros(len(outcome.labels), dtype=bool)
    longer = [sum((members.get(name, none) for name in names), none) for names in (GAPS[3:], GAPS[:2])]
    expected, wins = np.zeros(len(none)), np.zeros(len(none))
    for rows, is_side in zip(longer, (partners < 0, partners > 0), strict=True):
        expected += rows * outcome.probs[:, is_side].sum(axis=1)
        wins += rows * is_side[outcome.labels]
    differ = (longer[0] | longer[1]).astype(np.float64)
    tables = [one[:, None] for one in (differ, expected, wins)]
    found = [one[0] for one in measured_sums(tables, outcome.groups, _shares)]
    digits = digits_for(found[2].interval)
    verdict = "as often as it does"
    if found[2].is_sure:
        verdict = "too often" if found[2].value > 0 else "too seldom"
    return (
        f"The longer answer is expected to win {verdict}: with {found[0].value:.3f}, and it wins {found[1].value:.3f}"
        f" of {int(differ.sum()):,} pairs (difference {number(found[2].value, digits, True)}, 95 % interval"
        f" {interval(found[2].interval, digits, True)})."
    )


def _picture(sides: list[SideShares]) -> Markup:
    short = tuple(
        name.replace("less than half as long", "< half")
        .replace("more than twice as long", "> twice")
        .replace("about as long", "alike")
        for name in (one.gap for one in sides)
    )
    plot = Plot(
        Axis(-0.3, len(sides) - 0.7, "length of the first answer beside the second", short),
        Axis(0, 1, "first answer wins"),
        "The share that the first answer wins, by its length beside the second's",
        480,
    )
    for name, place, values in (
        ("expected", 0, [one.first_expected.value for one in sides]),
        ("true", 1, [one.first_share.value for one in sides]),
    ):
        plot.line([*range(len(sides))], values, name, f"s{place}")
        for k, value in enumerate(values):
            plot.dot(k, value, f"{name}: {value:.3f} of {sides[k].count:,} pairs", f"s{place}")
    return plot.svg()
