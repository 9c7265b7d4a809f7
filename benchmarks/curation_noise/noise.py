"""The faults of real data sets, added to clean rows on purpose, so that every faulty row is known."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from benchmarks.curation_noise import foreign, words
from benchmarks.curation_noise.clean import Draw, Row, draw_clean
from samples import pairs

COPIES = ("repeat", "near_duplicate")  # removed correctly if one of the two rows is gone
# The encoding in which a text was written, and the one in which it was read.
WRONGLY_READ = (("utf-8", "cp932"), ("utf-8", "latin-1"), ("utf-8", "cp1252"), ("euc_jp", "cp932"), ("cp932", "utf-8"))


def chinese_answer(row: Row, draw: Draw) -> Row:
    return replace(row, output="".join(draw.some(chinese(draw), draw.whole(2, 6))))


def switch_to_chinese(row: Row, draw: Draw) -> Row:
    """Japanese for a while, then Chinese, at a sentence's end or in its middle."""
    start = draw.paragraph(draw.whole(1, 4), thing=draw.one(words.THINGS))
    if draw.whole(0, 2) == 0:
        start = start[: -draw.whole(6, 12)] + "，"
    return replace(row, output=start + "".join(draw.some(chinese(draw), draw.whole(1, 5))))


def chinese(draw: Draw) -> Sequence[str]:
    return foreign.TAIWANESE if draw.whole(0, 2) == 0 else foreign.CHINESE


def english_answer(row: Row, draw: Draw) -> Row:
    return replace(row, output=" ".join(draw.some(foreign.ENGLISH, draw.whole(2, 6))))


def other_script(row: Row, draw: Draw) -> Row:
    """A whole answer, or some words in the middle of a Japanese one."""
    sentences = foreign.OTHER_SCRIPTS[draw.whole(0, len(foreign.OTHER_SCRIPTS) - 1)]
    if draw.whole(0, 1):
        return replace(row, output=" ".join(draw.some(sentences, draw.whole(1, 3))))
    return replace(row, output=insert(row.output, draw.one(sentences), draw))


def about_itself(row: Row, draw: Draw) -> Row:
    return replace(row, output=draw.one(foreign.ABOUT_ITSELF) + row.output)


def code_or_link(row: Row, draw: Draw) -> Row:
    addition = draw.fill(draw.one(foreign.CODE_AND_LINKS)).replace("§", "\n")
    if draw.whole(0, 4) == 0:
        return replace(row, instruction=f"{row.instruction}\n{addition}")
    return replace(row, output=f"{row.output}\n{addition}")


def rare_character(row: Row, draw: Draw) -> Row:
    """One to three ideographs or signs from anywhere in Unicode, in the question or in the answer."""
    ideographs = ((0x4E00, 0x9FEF), (0x3400, 0x4DBF), (0x20000, 0x2A6D6))
    signs = ((0x2600, 0x26FF), (0x1F600, 0x1F64F), (0x2190, 0x21FF))
    blocks = (*ideographs, *signs)
    low, high = blocks[draw.whole(0, len(blocks) - 1)]
    slip = "".join(chr(draw.whole(low, high)) for _ in range(draw.whole(1, 3)))
    if draw.whole(0, 3) == 0:
        return replace(row, instruction=insert(row.instruction, slip, draw))
    return replace(row, output=insert(row.output, slip, draw))


def mojibake(row: Row, draw: Draw) -> Row:
    """A stretch of the answer, or all of it, written in one encoding and read in another."""
    written, read = WRONGLY_READ[draw.whole(0, len(WRONGLY_READ) - 1)]
    text = draw.paragraph(1) if row.output.isascii() else row.output  # digits are the same in every encoding
    start = 0 if draw.whole(0, 1) else draw.whole(0, max(len(text) - 24, 0))
    broken = text[start:].encode(written, "ignore").decode(read, "replace")
    return replace(row, output=text[:start] + broken)


def repeat(row: Row, draw: Draw) -> Row:
    """The same row again, now and then with other white space, or letters and digits of another width."""
    spaced = row.output.replace("。", "。 ") if draw.whole(0, 2) == 0 else row.output
    wide = row.instruction.translate(WIDE) if draw.whole(0, 2) == 0 else row.instruction
    return replace(row, instruction=wide, output=spaced)


WIDE = {ord("!") + number: 0xFF01 + number for number in range(94)}
ENDINGS = pairs("です。/でしょう。 ます。/ますよ。 ました。/たのです。 ください。/くださいね。 。/！")


def near_duplicate(row: Row, draw: Draw) -> Row:
    """One word replaced by another of its kind, or one ending or particle said otherwise."""
    names = (words.THINGS, words.PLACES, words.SURNAMES)
    parts = (*names, words.QUALITIES, words.DEEDS, words.CAUTIONS, words.WHEN, words.SHORT)
    present = [(word, kind) for kind in parts for word in kind if word in row.output]
    if present and draw.whole(0, 1):
        word, kind = present[draw.whole(0, len(present) - 1)]
        return replace(row, output=row.output.replace(word, draw.one([w for w in kind if w != word]), 1))
    fitting = [pair for pair in ENDINGS if pair[0] in row.output]
    old, new = fitting[draw.whole(0, len(fitting) - 1)] if fitting else (row.output, row.output + "です")
    return replace(row, output=row.output.replace(old, new, 1))


def empty_answer(row: Row, draw: Draw) -> Row:
    return replace(row, output=draw.one((" ", "　", "\n\n", "…", "。", "---", "\u200b")))


def too_short(row: Row, draw: Draw) -> Row:
    return replace(row, instruction=row.instruction[: draw.whole(1, 3)])


def too_long(row: Row, draw: Draw) -> Row:
    """Five to fifteen thousand characters, as a model writes that finds no end."""
    length, text = draw.whole(5_000, 15_000), ""
    while len(text) < length:
        text += draw.paragraph(12, thing=draw.one(words.THINGS))
    return replace(row, output=text)


def insert(text: str, addition: str, draw: Draw) -> str:
    place = draw.whole(0, len(text))
    return text[:place] + addition + text[place:]


OTHER_LANGUAGES = (chinese_answer, switch_to_chinese, english_answer, other_script)
OTHER_TEXTS = (about_itself, code_or_link, rare_character, mojibake, repeat, near_duplicate)
SPOILERS = (*OTHER_LANGUAGES, *OTHER_TEXTS, empty_answer, too_short, too_long)
NOISE: Mapping[str, Callable[[Row, Draw], Row]] = {spoil.__name__: spoil for spoil in SPOILERS}


def draw_rows(num_rows: int, share: float, seed: int) -> dict[str, Row]:
    """Rows by id in random order, the noisy `share` of them of every kind alike; a copy's `of` is its row's id."""
    rng = np.random.default_rng(seed)
    draw, each = Draw(rng), round(num_rows * share / len(NOISE))
    clean = draw_clean(num_rows, rng)
    kept = clean[: num_rows - each * len(NOISE)]
    spoilt = clean[len(kept) :]
    rows: list[tuple[Row, int]] = [(row, -1) for row in kept]
    for number, (kind, spoil) in enumerate(NOISE.items()):
        places = rng.permutation(len(kept))[:each].tolist() if kind in COPIES else [-1] * each
        chosen = [kept[place] for place in places] if kind in COPIES else spoilt[number * each : (number + 1) * each]
        rows += [(replace(spoil(row, draw), kind=kind), place) for row, place in zip(chosen, places, strict=True)]
    order = rng.permutation(len(rows)).tolist()
    ids = {old: f"r{new:06}" for new, old in enumerate(order)}
    return {ids[old]: replace(rows[old][0], of=ids.get(rows[old][1], "")) for old in order}
