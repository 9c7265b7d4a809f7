"""How texts are cut to a budget of tokens: turns are dropped first, then the longest texts lose what matters least."""

from collections.abc import Callable, Mapping, Sequence

Fields = Mapping[str, tuple[str, ...]]


def fit_fields(
    fields: Fields,
    budget: int,
    spans: Callable[[str], list[tuple[int, int]]],
    cut_at: float,
    turn_tokens: int = 0,
    options: str = "",
) -> Fields:
    """Shrink `fields` to about `budget` tokens: drop the earliest turns, then cut what is left, longest texts first.

    `spans(text)` gives each token's (start, end) in characters; `turn_tokens` is what the template itself adds for
    each turn but the last. Turns of the fields that have several are aligned
    (turn i of the prompt belongs to turn i of each response) and are dropped together; the last turn always stays, and
    so does every item of the field `options`.
    """
    sizes = {name: [len(spans(turn)) for turn in turns] for name, turns in fields.items() if name != options}
    own = sum(len(spans(option)) for option in fields.get(options, ()))
    last = max(map(len, sizes.values()), default=1) - 1
    first = next(
        (start for start in range(last) if own + _total(sizes, start) + (last - start) * turn_tokens <= budget), last
    )
    kept = {name: turns[first:] if len(turns) > 1 and name != options else turns for name, turns in fields.items()}
    if own + _total(sizes, first) <= budget:
        return kept
    own = min(own, budget * 3 // 4)  # the options stay whole as long as a quarter is left for the question
    parts = ({options: kept[options]} if options in kept else {}), {n: t for n, t in kept.items() if n != options}
    shares = [
        fair_share([len(spans(turn)) for turns in part.values() for turn in turns], tokens)
        for part, tokens in zip(parts, (own, budget - own), strict=True)
    ]
    share_of = {name: share for part, share in zip(parts, shares, strict=True) for name in part}
    return {
        name: tuple(cut(turn, spans(turn), share_of[name], cut_at) for turn in turns) for name, turns in kept.items()
    }


def _total(sizes: Mapping[str, list[int]], first: int) -> int:
    return sum(sum(counts[first:]) if len(counts) > 1 else sum(counts) for counts in sizes.values())


def fit_passages(
    passages: Sequence[str], budget: int, spans: Callable[[str], list[tuple[int, int]]]
) -> tuple[str, ...]:
    """The first passages that `budget` tokens hold, the last of them without its end."""
    kept: list[str] = []
    for passage in passages:
        if budget <= 0:
            break
        kept.append(cut(passage, spans(passage), budget, cut_at=1.0))
        budget -= len(spans(passage))
    return tuple(kept)


def fair_share(sizes: Sequence[int], budget: int) -> int:
    """Return the largest cap c with sum(min(size, c)) <= budget: short texts stay whole, long ones share the rest."""
    remaining, waiting = max(budget, 0), sorted(sizes)
    for position, size in enumerate(waiting):
        cap = remaining // (len(waiting) - position)
        if size > cap:
            return cap
        remaining -= size
    return max(waiting, default=0)


def cut(text: str, spans: Sequence[tuple[int, int]], limit: int, cut_at: float) -> str:
    """Return `text` without enough of its tokens around the fraction `cut_at` to leave `limit` of them."""
    if len(spans) <= limit:
        return text
    head = round(limit * cut_at)
    tail = limit - head
    before = text[: spans[head - 1][1]] if head else ""
    return before + (text[spans[len(spans) - tail][0] :] if tail else "")
