"""Write train.jsonl (`rows` rows), test.jsonl and truth.jsonl; the same seed gives the same bytes.

python -m samples.instruct [output_dir=input/sample-instruct] [seed=0] [rows=400]

The instructions are generated, in English and Japanese. Small models learn some kinds quickly and others only in part.
A kind whose name ends in `_shown` can be answered only with the help of a solved row of the same family or shop. All
texts are short, because near-duplicates are searched for in longer texts only.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from nexttoken.commands.arguments import run
from samples import pairs, pick, sample_command, some, words, write_lines

THINGS = words("""
apple bell boat book bread candle chair clock cloud coat drum fence flute garden glove hammer jar kettle lamp lemon
melon needle paper pear piano ribbon river shirt spoon stone table tram violin window
""")
NAMES = words("Ada Ben Cleo Dora Emil Finn Gina Hugo Iris Jon Kay Lena Max Nora Omar Pia Rosa Sam Tess Vera")
TIMES = {"morning": "Good morning", "afternoon": "Good afternoon", "evening": "Good evening", "night": "Good night"}
OPPOSITES = pairs("""
hot/cold big/small fast/slow old/new open/closed full/empty hard/soft wet/dry early/late loud/quiet rich/poor
deep/shallow
""")
OPPOSITE_QUESTIONS = ("What is the opposite of {}?", "Which word is the reverse of {}?", "Name what is not {}.")

# Each family's way to sign a letter; only another letter of the same family tells it.
CLOSINGS = {
    "Bribel": "Rain and roses",
    "Dromar": "Salt and silver",
    "Flagos": "Warm bread",
    "Grokin": "Seven lamps",
    "Klanok": "Quiet rivers",
    "Skevin": "Long summers",
    "Trupas": "Honey and clay",
    "Vrasum": "Under one roof",
}

JA_THINGS = words("りんご みかん つくえ いす とけい かさ くつ ぼうし ほん はな ふね つき ほし かぎ さら はし")
JA_NAMES = words("田中 山本 中村 小林 加藤 吉田 佐藤 高橋 伊藤 渡辺 森 林 清水 原 石川 上田")
JA_TIMES = {"朝": "おはようございます", "昼": "こんにちは", "夕方": "こんばんは", "寝る前": "おやすみなさい"}
JA_OPPOSITES = pairs("""
大きい/小さい 高い/低い 明るい/暗い 長い/短い 新しい/古い 重い/軽い 強い/弱い 広い/狭い 厚い/薄い 近い/遠い
""")
JA_OPPOSITE_QUESTIONS = ("「{}」の反対は何ですか。", "「{}」と逆の言葉を書いてください。", "反対語を一つ。「{}」")

# Each shop's bag; only another thing from the same shop tells it.
JA_BAGS = {
    "あさひ屋": "赤い布",
    "みどり堂": "青い紙",
    "やなぎ屋": "白い網",
    "こだま堂": "黒い革",
    "つばめ屋": "金色の紙",
    "いずみ堂": "緑の布",
}


TRAIN_PER_TEST = 20 / 3
MAX_ROWS = 500  # train rows; the kind with the fewest different rows, Japanese opposites, has 60 in all


@dataclass(frozen=True, slots=True)
class Task:
    """One instruction with the only right answer."""

    kind: str
    instruction: str
    input: str
    output: str


Drawn = tuple[str, str, str]  # instruction, input, output


def write_sample_instruct(folder: Path, seed: int, num_train: int) -> str:
    """Write train, test (without `output`) and truth JSON lines into `folder`; return one line that says what it is."""
    tasks = draw_tasks(num_train + round(num_train / TRAIN_PER_TEST), np.random.default_rng(seed))
    rows = [{"id": f"i{index:05}", **asdict(task)} for index, task in enumerate(tasks)]
    write_lines(folder / "train.jsonl", rows[:num_train])
    write_lines(folder / "test.jsonl", ({k: v for k, v in row.items() if k != "output"} for row in rows[num_train:]))
    truth = ({key: row[key] for key in ("id", "kind", "output")} for row in rows[num_train:])
    write_lines(folder / "truth.jsonl", truth)
    return f"{folder}: {num_train} train and {len(rows) - num_train} test rows of {len(KINDS)} kinds"


def draw_tasks(num_rows: int, rng: np.random.Generator) -> list[Task]:
    """Different tasks in random order, the kinds equally frequent."""
    kinds, tasks = list(KINDS), dict[tuple[str, str], Task]()
    while len(tasks) < num_rows:
        kind = kinds[len(tasks) % len(kinds)]
        instruction, given, output = KINDS[kind](rng)
        tasks.setdefault((instruction, given), Task(kind, instruction, given, output))
    drawn = list(tasks.values())
    return [drawn[index] for index in rng.permutation(num_rows)]


def copy(rng: np.random.Generator) -> Drawn:
    chosen = " ".join(some(THINGS, 2, rng))
    return "Write this again.", chosen, chosen


def capitals(rng: np.random.Generator) -> Drawn:
    chosen = " ".join(some(THINGS, 2, rng))
    return "Write this in capitals.", chosen, chosen.upper()


def last(rng: np.random.Generator) -> Drawn:
    chosen = some(THINGS, int(rng.integers(2, 4)), rng)
    return "Which comes last?", ", ".join(chosen), chosen[-1]


def count(rng: np.random.Generator) -> Drawn:
    chosen = some(THINGS, int(rng.integers(1, 5)), rng)
    return "How many?", ", ".join(chosen), str(len(chosen))


def opposite(rng: np.random.Generator) -> Drawn:
    word, other = opposite_of(OPPOSITES, rng)
    return pick(OPPOSITE_QUESTIONS, rng).format(word), "", other


def greeting(rng: np.random.Generator) -> Drawn:
    name, time = pick(NAMES, rng), pick(list(TIMES), rng)
    return f"Greet {name} in the {time}.", "", f"{TIMES[time]}, {name}!"


def closing_shown(rng: np.random.Generator) -> Drawn:
    family, name = pick(list(CLOSINGS), rng), pick(NAMES, rng)
    return f"How do the {family} sign to {name}?", "", f"{CLOSINGS[family]}, {name}."


def ja_opposite(rng: np.random.Generator) -> Drawn:
    word, other = opposite_of(JA_OPPOSITES, rng)
    return pick(JA_OPPOSITE_QUESTIONS, rng).format(word), "", other


def ja_greeting(rng: np.random.Generator) -> Drawn:
    name, time = pick(JA_NAMES, rng), pick(list(JA_TIMES), rng)
    return f"{time}、{name}さんにあいさつしてください。", "", f"{name}さん、{JA_TIMES[time]}。"


def ja_count(rng: np.random.Generator) -> Drawn:
    chosen = some(JA_THINGS, int(rng.integers(1, 5)), rng)
    return "いくつありますか。", "、".join(chosen), f"{len(chosen)}つです。"


def ja_twice(rng: np.random.Generator) -> Drawn:
    word = "と".join(some(JA_THINGS, 2, rng))
    return "二回書いてください。", word, f"{word}、{word}"


def ja_bag_shown(rng: np.random.Generator) -> Drawn:
    shop, thing = pick(list(JA_BAGS), rng), pick(JA_THINGS, rng)
    return f"{shop}で{thing}を買うと、袋は？", "", f"{thing}は{JA_BAGS[shop]}の袋です。"


ENGLISH = (copy, capitals, last, count, opposite, greeting, closing_shown)
JAPANESE = (ja_opposite, ja_greeting, ja_count, ja_twice, ja_bag_shown)
KINDS: Mapping[str, Callable[[np.random.Generator], Drawn]] = {draw.__name__: draw for draw in ENGLISH + JAPANESE}


def opposite_of(opposites: Sequence[tuple[str, str]], rng: np.random.Generator) -> tuple[str, str]:
    first, second = pick(opposites, rng)
    return (first, second) if rng.integers(2) else (second, first)


main = sample_command(write_sample_instruct, "input/sample-instruct", rows=(20, 400, MAX_ROWS))

if __name__ == "__main__":
    run(main, __doc__)
