"""Cutting of texts to a budget of tokens: the earliest turns are dropped first, then the longest texts shortened."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from nexttoken.data.words import sentence_ends

Fields = Mapping[str, tuple[str, ...]]
Spans = Callable[[str], Sequence[tuple[int, int]]]  # each token's (start, end) in characters
Shorten = Callable[[str, Spans, int, float], str]  # text, spans, limit, cut_at -> at most `limit` tokens of it

MIN_USED_SHARE = 0.5  # of a budget: if whole sentences fill less, the text is cut by tokens


def fit_fields(
    fields: Fields,
    budget: int,
    spans: Spans,
    cut_at: float,
    turn_tokens: int = 0,
    options: str = "",
    shorten: Shorten | None = None,
) -> Fields:
    """Shrink `fields` to about `budget` tokens: drop the earliest turns, then cut the rest, longest texts first.

    `turn_tokens` is the number of the template's tokens per turn except the last. Fields of several turns are aligned
    (turn i of the prompt belongs to turn i of each response), and their turns are dropped together. The last turn and
    all items of the field `options` are never dropped. `shorten` cuts a text; it is `cut_tokens` by default.
    """
    shorten = shorten or cut_tokens
    sizes = {name: [len(spans(turn)) for turn in turns] for name, turns in fields.items() if name != options}
    option_tokens = sum(len(spans(option)) for option in fields.get(options, ()))
    last = max(map(len, sizes.values()), default=1) - 1
    rest = budget - option_tokens
    first = next((start for start in range(last) if _total(sizes, start) + (last - start) * turn_tokens <= rest), last)
    kept = {name: turns[first:] if len(turns) > 1 and name != options else turns for name, turns in fields.items()}
    if _total(sizes, first) <= rest:
        return kept
    option_tokens = min(option_tokens, budget * 3 // 4)  # options stay whole if that leaves a quarter for the question
    parts = ({options: kept[options]} if options in kept else {}), {n: t for n, t in kept.items() if n != options}
    shares = [
        fair_share([len(spans(turn)) for turns in part.values() for turn in turns], tokens)
        for part, tokens in zip(parts, (option_tokens, budget - option_tokens), strict=True)
    ]
    share_of = {name: share for part, share in zip(parts, shares, strict=True) for name in part}
    return {name: tuple(shorten(turn, spans, share_of[name], cut_at) for turn in turns) for name, turns in kept.items()}


def _total(sizes: Mapping[str, list[int]], first: int) -> int:
    return sum(sum(counts[first:]) if len(counts) > 1 else sum(counts) for counts in sizes.values())


def fit_passages(passages: Sequence[str], budget: int, spans: Spans) -> tuple[str, ...]:
    """Return the first passages that fit into `budget` tokens; the last one may lose its end."""
    used = accumulate((len(spans(passage)) for passage in passages), initial=0)
    pairs = zip(passages, used, strict=False)
    return tuple(cut_tokens(passage, spans, budget - start, cut_at=1.0) for passage, start in pairs if start < budget)


def fair_share(sizes: Sequence[int], budget: int) -> int:
    """Return the largest cap c with sum(min(size, c)) <= budget: short texts stay whole, long ones share the rest."""
    remaining, waiting = max(budget, 0), sorted(sizes)
    for position, size in enumerate(waiting):
        cap = remaining // (len(waiting) - position)
        if size > cap:
            return cap
        remaining -= size
    return max(waiting, default=0)


def cut_tokens(text: str, spans: Spans, limit: int, cut_at: float) -> str:
    """Shorten `text` to at most `limit` tokens by removing tokens around the fraction `cut_at`: 0 cuts its beginning.

    The head gets the share `cut_at` of the limit, the tail the rest.
    """
    places = spans(text)
    if len(places) <= limit:
        return text

    def join(number: int) -> str:
        head = round(number * cut_at)
        end = places[head - 1][1] if head else 0
        start = places[len(places) - number + head][0] if number > head else len(text)
        return text[:end] + text[start:]

    return _fit_measured(join, spans, limit)


def cut_sentences(text: str, spans: Spans, limit: int, cut_at: float) -> str:
    """Shorten `text` to at most `limit` tokens by removing whole sentences around the fraction `cut_at`.

    The first and the last sentence have priority (with `cut_at` 0 only the last, with 1 only the first). Then the head
    and the tail are filled up to their shares of the limit, then with any sentence that still fits. If whole sentences
    use less than `MIN_USED_SHARE` of the limit, because they are very long, the text is cut by tokens.
    """
    places = spans(text)
    if len(places) <= limit:
        return text
    sentences = _Sentences.of(text, places, cut_at)
    shorter = _fit_measured(sentences.join, spans, limit)
    return shorter if len(spans(shorter)) >= MIN_USED_SHARE * limit else cut_tokens(text, spans, limit, cut_at)


def kept_share(before: Fields, after: Fields) -> float:
    """Share of the characters of `before` that `after` still has; 1 if there are none."""
    whole, left = (sum(len(turn) for turns in some.values() for turn in turns) for some in (before, after))
    return left / whole if whole else 1.0


@dataclass(frozen=True)
class _Sentences:
    """Token counts of a text's sentences: `heads[n]` for the first n, `tails[n]` for the last n."""

    text: str
    ends: Sequence[int]  # characters
    heads: Sequence[int]
    tails: Sequence[int]
    cut_at: float

    @classmethod
    def of(cls, text: str, places: Sequence[tuple[int, int]], cut_at: float) -> "_Sentences":
        """Count tokens; a token in two sentences counts for both. `cut_at` 0 keeps no head, 1 no tail."""
        ends = sentence_ends(text)
        starts_of, ends_of = [start for start, _ in places], [end for _, end in places]
        heads = [0, *(bisect_left(starts_of, end) for end in ends)]
        tails = [0, *(len(places) - bisect_right(ends_of, start) for start in [*ends[-2::-1], 0])]
        return cls(text, ends, heads if cut_at > 0 else [0], tails if cut_at < 1 else [0], cut_at)

    def join(self, limit: int) -> str:
        """Join as many of the first and the last sentences as fit into `limit` tokens."""
        heads, tails, share = self.heads, self.tails, round(limit * self.cut_at)
        head = min(_num_fitting(heads, limit), 1)
        tail = min(_num_fitting(tails, limit - heads[head]), 1)
        head = max(head, _num_fitting(heads, min(share, limit - tails[tail])))
        tail = max(tail, _num_fitting(tails, min(limit - share, limit - heads[head])))
        head = _num_fitting(heads, limit - tails[tail])
        tail = _num_fitting(tails, limit - heads[head])
        before = self.text[: self.ends[head - 1]] if head else ""
        return before + (self.text[[0, *self.ends][-tail - 1] :] if tail else "")


def _num_fitting(sizes: Sequence[int], limit: int) -> int:
    """Number of sentences that fit into `limit` tokens."""
    return bisect_right(sizes, limit) - 1


def _fit_measured(join: Callable[[int], str], spans: Spans, limit: int) -> str:
    """Return `join(number)` for the largest tried number that gives at most `limit` tokens: tokens change at joins."""
    number = limit
    while number > 0:
        text = join(number)
        excess = len(spans(text)) - limit
        if excess <= 0:
            return text
        number -= excess
    return ""
