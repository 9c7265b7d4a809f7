"""Clean Japanese rows of many kinds, including awkward ones: kanji only, numbers, one word, English words, letters.

The same random generator draws the same texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from string import Formatter

import numpy as np

from benchmarks.curation_noise import words
from benchmarks.curation_noise.sentences import LETTERS, QUESTIONS, SENTENCES, STORIES
from samples import lines, pick, some

CHOICES = {
    **dict.fromkeys(("thing", "other"), words.THINGS),
    **dict.fromkeys(("place", "place2"), words.PLACES),
    **dict.fromkeys(("surname", "surname2"), words.SURNAMES),
    "given": words.GIVEN,
    "when": words.WHEN,
    "quality": words.QUALITIES,
    "deed": words.DEEDS,
    "reason": words.REASONS,
    "caution": words.CAUTIONS,
    "english": words.ENGLISH,
}
SUMMARY_REQUESTS = lines("""
次の文章を要約してください。
以下の文を一文にまとめてください。
要点だけを短く書き直してください。
""")
LETTER_REQUESTS = ("{thing}に関する連絡の文面を作ってください。", "{surname}さんに送る手紙の下書きをお願いします。")
RANGES = {"number": (2, 99, 10), "small": (2, 9, 1), "percent": (11, 89, 1)}  # lowest, highest, times


@cache
def places(form: str) -> tuple[str, ...]:
    """Names of the places in a form, each once."""
    return tuple(dict.fromkeys(name for _, name, _, _ in Formatter().parse(form) if name))


@dataclass(frozen=True)
class Draw:
    """Draws by one generator, in the order of the calls."""

    rng: np.random.Generator

    def one(self, items: Sequence[str]) -> str:
        return pick(items, self.rng)

    def some(self, items: Sequence[str], count: int) -> list[str]:
        return some(items, count, self.rng)

    def whole(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def uncommon(self) -> str:
        """Few of them often, most of them seldom (Zipf)."""
        return words.UNCOMMON[min(int(self.rng.zipf(1.3)), len(words.UNCOMMON)) - 1]

    def fill(self, form: str, **given: str) -> str:
        """Put a word into every place of `form`, those of `given` into theirs."""
        return form.format(**{name: given[name] if name in given else self._word(name) for name in places(form)})

    def _word(self, name: str) -> str:
        if name == "uncommon":
            return self.uncommon()
        if name in RANGES:
            low, high, factor = RANGES[name]
            return str(self.whole(low, high) * factor)
        return self.one(CHOICES[name])

    def paragraph(self, count: int, **given: str) -> str:
        return "".join(self.fill(form, **given) for form in self.some(SENTENCES, count))


@dataclass(frozen=True, slots=True)
class Row:
    """One row; `kind` is "clean" or its fault, `of` the id of the row that it copies."""

    instruction: str
    input: str
    output: str
    kind: str = "clean"
    of: str = ""


def explanation(draw: Draw) -> Row:
    thing = draw.one(words.THINGS)
    question = draw.fill(draw.one(QUESTIONS), thing=thing)
    parts = [draw.paragraph(draw.whole(2, 4), thing=thing) for _ in range(draw.whole(1, 3))]
    return Row(question, "", "\n\n".join(parts))


def summary(draw: Draw) -> Row:
    thing = draw.one(words.THINGS)
    text = draw.paragraph(draw.whole(4, 7), thing=thing)
    sentences = text.split("。")
    return Row(draw.one(SUMMARY_REQUESTS), text, draw.one(sentences[:-1]) + "。")


def letter(draw: Draw) -> Row:
    ask = draw.fill(draw.one(LETTER_REQUESTS))
    return Row(ask, "", draw.fill(draw.one(LETTERS)) + draw.one(("", "\n追伸：" + draw.paragraph(1))))


def story(draw: Draw) -> Row:
    given = {"given": draw.one(words.GIVEN), "thing": draw.one(words.THINGS), "surname": draw.one(words.SURNAMES)}
    chosen = sorted(draw.some([str(number) for number in range(len(STORIES))], draw.whole(5, 9)), key=int)
    text = "\n".join(draw.fill(STORIES[int(number)], **given) for number in chosen)
    return Row(draw.fill("{given}が{thing}で友達を作る短い物語を書いてください。", **given), "", text)


def listing(draw: Draw) -> Row:
    count = draw.whole(3, 6)
    chosen = draw.some(words.THINGS, count)
    items = [f"{number}. {thing}：{draw.one(words.REASONS)}ため。" for number, thing in enumerate(chosen, start=1)]
    ask = draw.fill("{place}の{when}におすすめのものを{count}つ挙げ、理由も書いてください。", count=str(count))
    return Row(ask, "", "\n".join(items))


def arithmetic(draw: Draw) -> Row:
    price, count = draw.whole(8, 250) * 10, draw.whole(2, 30)
    ask = draw.fill("1個{price}円の品物を{count}個買うと、全部で何円になりますか。", price=str(price), count=str(count))
    total = price * count
    answers = (f"{total}", f"{total:,}円です。", f"{price}×{count}＝{total}なので、{total}円です。")
    return Row(ask, "", draw.one(answers))


def one_word(draw: Draw) -> Row:
    hint = draw.one(words.THINGS)
    facts = "{place}の{surname}さんが{when}に調べた、{quality}ものです。{hint}に関係があります。"
    ask = draw.fill(f"次の説明に合う語を一つだけ答えてください。{facts}", hint=hint)
    return Row(ask, "", draw.one(words.SHORT))


def kanji_alone(draw: Draw) -> Row:
    """Headlines, addresses and idioms: the answer has no kana, and in some rows the instruction has none either."""
    parts = (words.OFFICES, words.MATTERS, words.MOVES)
    headline = "、".join("".join(map(draw.one, parts)) for _ in range(draw.whole(1, 2)))
    place, town, surname = draw.one(words.PLACES), draw.one(words.PLACES), draw.one(words.SURNAMES)
    address = f"{place}市{town}町{draw.whole(1, 9)}丁目{draw.whole(1, 40)}番地"
    ask_headline = draw.fill("{place}の{thing}を扱う新聞の見出しを、漢字だけで作ってください。")
    ask_idioms = draw.fill("{surname}さんの座右の銘になりそうな四字熟語を、{thing}にちなんで挙げてください。")
    kinds = (
        Row(f"{place}{draw.one(words.MATTERS)}関連記事見出", "", headline),
        Row(ask_headline, "", headline),
        Row(ask_idioms, "", "、".join(draw.some(words.IDIOMS, draw.whole(2, 6)))),
        Row(f"{surname}{draw.one(words.GIVEN)}氏所属団体所在地", "", address),
    )
    return kinds[draw.whole(0, len(kinds) - 1)]


def english_word(draw: Draw) -> Row:
    word, tool = draw.one(words.ENGLISH), draw.one(words.TOOLS)
    thing = draw.one(words.THINGS)
    if draw.whole(0, 1):
        ask = draw.fill("英単語「{word}」の意味と、{thing}に関する使い方を教えてください。", word=word, thing=thing)
        example = draw.fill("たとえば「{thing} {word}」という形で使われます。", word=word, thing=thing)
        return Row(ask, "", f"「{word}」は、" + draw.paragraph(2, thing=thing) + example)
    ask = draw.fill("{tool}で{thing}の一覧を{deed}には、どうすればよいですか。", tool=tool, thing=thing)
    text = f"{tool}の{draw.one(words.ENGLISH)}機能を使い、{draw.one(words.ENGLISH)}の値を確かめます。"
    return Row(ask, "", text + draw.paragraph(draw.whole(1, 3), thing=thing))


KINDS = (explanation, summary, letter, story, listing, arithmetic, one_word, kanji_alone, english_word)
SHARES = (0.40, 0.12, 0.07, 0.09, 0.09, 0.05, 0.05, 0.06, 0.07)  # of each kind


def draw_clean(num_rows: int, rng: np.random.Generator) -> list[Row]:
    """Rows of which no two are equal."""
    draw, rows = Draw(rng), dict[Row, None]()
    shares = np.array(SHARES)
    while len(rows) < num_rows:
        for kind in rng.choice(len(KINDS), size=num_rows - len(rows), p=shares / shares.sum()):
            rows[KINDS[kind](draw)] = None
    return list(rows)
