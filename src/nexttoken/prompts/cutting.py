"""How texts are cut to a budget of tokens: turns are dropped first, then the longest texts lose what matters least."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from nexttoken.data.sentences import sentence_ends

Fields = Mapping[str, tuple[str, ...]]
Spans = Callable[[str], Sequence[tuple[int, int]]]  # each token's (start, end) in characters
Shorten = Callable[[str, Spans, int, float], str]  # text, spans, limit, cut_at -> at most `limit` tokens of it

LEAST_USED = 0.5  # of a budget: where whole sentences fill less of it, they are too long to be kept whole


def fit_fields(
    fields: Fields,
    budget: int,
    spans: Spans,
    cut_at: float,
    turn_tokens: int = 0,
    options: str = "",
    shorten: Shorten | None = None,
) -> Fields:
    """Shrink `fields` to about `budget` tokens: drop the earliest turns, then cut what is left, longest texts first.

    `spans(text)` gives each token's (start, end) in characters; `turn_tokens` is what the template itself adds for
    each turn but the last. Turns of the fields that have several are aligned
    (turn i of the prompt belongs to turn i of each response) and are dropped together; the last turn always stays, and
    so does every item of the field `options`. Texts are cut by `shorten`, by tokens unless it says otherwise.
    """
    shorten = shorten or cut_tokens
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
    return {name: tuple(shorten(turn, spans, share_of[name], cut_at) for turn in turns) for name, turns in kept.items()}


def _total(sizes: Mapping[str, list[int]], first: int) -> int:
    return sum(sum(counts[first:]) if len(counts) > 1 else sum(counts) for counts in sizes.values())


def fit_passages(passages: Sequence[str], budget: int, spans: Spans) -> tuple[str, ...]:
    """The first passages that `budget` tokens hold, the last of them without its end."""
    kept: list[str] = []
    for passage in passages:
        if budget <= 0:
            break
        kept.append(cut_tokens(passage, spans, budget, cut_at=1.0))
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


def cut_tokens(text: str, spans: Spans, limit: int, cut_at: float) -> str:
    """`text` without enough of its tokens around the fraction `cut_at` to leave at most `limit`: 0 cuts its beginning.

    The head gets the share `cut_at` of the limit, the tail the rest, so the place at `cut_at` of the text is lost.
    """
    places = spans(text)
    if len(places) <= limit:
        return text

    def joined(room: int) -> str:
        head = round(room * cut_at)
        end = places[head - 1][1] if head else 0
        start = places[len(places) - room + head][0] if room > head else len(text)
        return text[:end] + text[start:]

    return _measured(joined, spans, limit)


def cut_sentences(text: str, spans: Spans, limit: int, cut_at: float) -> str:
    """`text` with its first and its last sentences, whole, in at most `limit` tokens; those around `cut_at` are lost.

    The first and the last sentence are kept before any other (with `cut_at` 0 or 1 only the last or only the first),
    then head and tail are filled up to their shares of the limit, then with whatever sentence still fits. Where whole
    sentences use less than `LEAST_USED` of the limit, the text is cut by tokens instead: they are enormous, or the
    text has no sentence ends at all.
    """
    places = spans(text)
    if len(places) <= limit:
        return text
    sentences = _Sentences.of(text, places, cut_at)
    shorter = _measured(sentences.joined, spans, limit)
    return shorter if len(spans(shorter)) >= LEAST_USED * limit else cut_tokens(text, spans, limit, cut_at)


def kept_share(before: Fields, after: Fields) -> float:
    """The share of the characters of `before` that are left in `after`; 1 where there were none."""
    whole, left = (sum(len(turn) for turns in some.values() for turn in turns) for some in (before, after))
    return left / whole if whole else 1.0


@dataclass(frozen=True)
class _Sentences:
    """A text by its sentences: `heads[n]` are the tokens of the first n, `tails[n]` of the last n that may be kept."""

    text: str
    ends: Sequence[int]  # characters
    heads: Sequence[int]
    tails: Sequence[int]
    cut_at: float

    @classmethod
    def of(cls, text: str, places: Sequence[tuple[int, int]], cut_at: float) -> "_Sentences":
        """A token that lies in two sentences counts for both; `cut_at` 0 keeps no head, 1 no tail."""
        ends = sentence_ends(text)
        starts_of, ends_of = [start for start, _ in places], [end for _, end in places]
        heads = [0, *(bisect_left(starts_of, end) for end in ends)]
        tails = [0, *(len(places) - bisect_right(ends_of, start) for start in [*ends[-2::-1], 0])]
        return cls(text, ends, heads if cut_at > 0 else [0], tails if cut_at < 1 else [0], cut_at)

    def joined(self, limit: int) -> str:
        """As many of the first and of the last sentences as `limit` tokens hold."""
        heads, tails, share = self.heads, self.tails, round(limit * self.cut_at)
        head = min(_most(heads, limit), 1)
        tail = min(_most(tails, limit - heads[head]), 1)
        head = max(head, _most(heads, min(share, limit - tails[tail])))
        tail = max(tail, _most(tails, min(limit - share, limit - heads[head])))
        head = _most(heads, limit - tails[tail])
        tail = _most(tails, limit - heads[head])
        before = self.text[: self.ends[head - 1]] if head else ""
        return before + (self.text[[0, *self.ends][-tail - 1] :] if tail else "")


def _most(sizes: Sequence[int], room: int) -> int:
    """How many sentences fit into `room`."""
    return bisect_right(sizes, room) - 1


def _measured(joined: Callable[[int], str], spans: Spans, limit: int) -> str:
    """`joined(room)` with as much room as gives at most `limit` tokens: tokens change where texts meet."""
    room = limit
    while room > 0:
        text = joined(room)
        excess = len(spans(text)) - limit
        if excess <= 0:
            return text
        room -= excess
    return ""
