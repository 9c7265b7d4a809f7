"""Write train.jsonl (`rows` dialogues), test.jsonl and truth.jsonl; the same seed gives the same bytes.

python -m samples.dialogue [output_dir=input/sample-dialogue] [seed=0] [rows=120]

The dialogues are generated. A philosopher opens with a question, and asks another one after each thing he is told. Each
question repeats the user's last words, so an answer follows from the turn before it. Some dialogues hold broken
answers; the dialogue's mark, 0 to 4, says how many.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nexttoken.commands.arguments import run
from samples import pick, sample_command, words, write_lines

TOPICS = ("勇気", "知恵", "友情", "正義", "幸せ", "自由", "徳", "美しさ", "誠実さ", "節度")
PEOPLE = ("漁師", "医者", "大工", "教師", "商人", "兵士", "詩人", "農夫", "料理人", "船乗り", "学生", "職人")
QUALITIES = words("""
人を助ける 恐れを知る 多くを学ぶ 約束を守る 欲を抑える 真実を語る 友を思う よく働く 自分を知る 静かに待つ 等しく分ける
心を静める 家を守る 先を読む
""")

# {t} is the topic, {q} what the user said of it, {p} the user's trade.
OPENINGS = ("{t}とは何だと思いますか。", "あなたにとって、{t}とは何ですか。", "{p}さん、{t}について教えてください。")
USER = (
    "{t}とは、{q}ことだと思います。",
    "{p}の私には、{t}は{q}ことです。",
    "それは{q}ことでしょうか。",
    "{t}は、{q}ことかもしれません。",
    "やはり、{q}ことに尽きます。",
)
ASSISTANT = (
    "では、{q}人はみな{t}を持つのですか。",
    "{q}ことが、害になる時はありませんか。",
    "{p}でない人も、{q}べきでしょうか。",
    "{q}とは、どういうことですか。私は知らないのです。",
    "{q}ことと{t}は、同じものですか。",
    "{q}ことを、あなたは誰から学びましたか。",
)
# Broken answers: a clerk's phrases, a stutter, an answer that asks nothing back.
BROKEN = (
    "お支払いは明日までにお願いします。",
    "はいはいはいはいはいはいはい",
    "{q}{q}{q}{q}",
    "ご注文は三点ですね。",
    "わかりません。おわり。",
)

NUM_ROUNDS = 12  # a question and what the user says to it
NUM_BROKEN = {0: 9, 1: 6, 2: 3, 3: 1, 4: 0}  # broken answers in a dialogue of each mark
MARKS = (4, 4, 3, 4, 2, 4, 3, 4, 1, 4, 3, 0)  # of dialogues one after the other


@dataclass(frozen=True, slots=True)
class Talk:
    """Philosopher and user in turn, the philosopher first; `broken` holds the indices of broken utterances."""

    person: str
    topic: str
    utterances: tuple[str, ...]
    broken: tuple[int, ...]
    mark: int


def draw_talk(mark: int, rng: np.random.Generator) -> Talk:
    """Return a dialogue of `NUM_ROUNDS` rounds and the philosopher's next question; no opening is broken."""
    person, topic = pick(PEOPLE, rng), pick(TOPICS, rng)
    answers = rng.permutation(NUM_ROUNDS - 1)[: NUM_BROKEN[mark]]
    broken = sorted(2 * int(answer) + 2 for answer in answers)
    filled = {"p": person, "t": topic}
    utterances = [pick(OPENINGS, rng).format(**filled)]
    for place in range(1, 2 * NUM_ROUNDS + 1):
        if place % 2:
            filled["q"] = other_quality(filled, rng)
        phrases = USER if place % 2 else BROKEN if place in broken else ASSISTANT
        utterances.append(pick(phrases, rng).format(**filled))
    return Talk(person, topic, tuple(utterances), tuple(broken), mark)


def other_quality(filled: Mapping[str, str], rng: np.random.Generator) -> str:
    """Draw a quality that differs from the last one."""
    return pick([quality for quality in QUALITIES if quality != filled.get("q")], rng)


TRAIN_PER_TEST = 6
MARKED_OF_THREE = 2  # two of three training dialogues say their mark

SPEAKERS = ("assistant", "user")  # in turn


def write_sample_dialogue(folder: Path, seed: int, num_train: int) -> str:
    """Write train, test and truth JSON lines into `folder`; return one line that says what they hold.

    A training dialogue ends with the user after `NUM_ROUNDS` rounds, a test dialogue anywhere before, with the user
    too. `truth.jsonl` gives every mark and the places of broken turns, and for test rows the answer.
    """
    rng = np.random.default_rng(seed)
    train = [draw_talk(MARKS[index % len(MARKS)], rng) for index in range(num_train)]
    train = [train[index] for index in rng.permutation(num_train)]
    test = [draw_talk(max(MARKS), rng) for _ in range(num_train // TRAIN_PER_TEST)]
    ends = [2 * int(rng.integers(1, NUM_ROUNDS)) for _ in test]

    rows = [row(number, talk, 2 * NUM_ROUNDS) for number, talk in enumerate(train)]
    test_rows = [row(number, talk, end) for number, (talk, end) in enumerate(zip(test, ends, strict=True), num_train)]
    marked = [number for number in range(num_train) if number % 3 < MARKED_OF_THREE]
    train_rows = [{**rows[n], "mark": train[n].mark} if n in marked else rows[n] for n in range(num_train)]
    write_lines(folder / "train.jsonl", train_rows)
    write_lines(folder / "test.jsonl", test_rows)
    write_lines(folder / "truth.jsonl", truth([*rows, *test_rows], [*train, *test]))
    return f"{folder}: {num_train} train and {len(test_rows)} test dialogues; {len(marked)} tell their mark"


def row(number: int, talk: Talk, end: int) -> dict[str, Any]:
    """The dialogue's first `end` turns."""
    turns = [{"speaker": SPEAKERS[place % 2], "utterance": text} for place, text in enumerate(talk.utterances[:end])]
    return {"dialogue_id": f"d{number:05}", "persona": talk.person, "turns": turns}


def truth(rows: Sequence[dict[str, Any]], talks: Sequence[Talk]) -> list[dict[str, Any]]:
    known = []
    for line, talk in zip(rows, talks, strict=True):
        facts = {"dialogue_id": line["dialogue_id"], "mark": talk.mark, "broken": list(talk.broken)}
        end = len(line["turns"])
        known.append(facts | {"output": talk.utterances[end]} if end < 2 * NUM_ROUNDS else facts)
    return known


main = sample_command(write_sample_dialogue, "input/sample-dialogue", rows=(12, 120, 10_000))

if __name__ == "__main__":
    run(main, __doc__)
