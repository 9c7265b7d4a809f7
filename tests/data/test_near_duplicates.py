"""Near-duplicate grouping: equality, similarity, order, speed; and the MinHash sketches that find candidates."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from nexttoken.data.near_duplicates import group_ids, jaccard, normalise, shingles, sketch

PROMPT = (
    "Please explain to a curious child of ten years how a rainbow forms after the rain, why its colours always come in "
    "the same order, and where to stand to see one"
)


@pytest.fixture(scope="module")
def words() -> list[str]:
    rng = np.random.default_rng(0)
    return ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), rng.integers(2, 10))) for _ in range(2000)]


def test_texts_equal_after_normalisation_share_a_group() -> None:
    texts = ["What is AI?", "what  is ai", "Ｗｈａｔ is AI ！", "\ufeffWhat is\nAI...", "What is BI?"]
    assert group_ids(texts).tolist() == [0, 0, 0, 0, 1]
    assert normalise("Ｗｈａｔ is AI ！") == "what is ai"


def test_empty_texts_are_one_group_and_marks_alone_are_texts() -> None:
    groups = group_ids(["", "  \n", "???", "🙂", "\ud83d", "", "C", "C++", "C#"])
    assert groups[0] == groups[1] == groups[5]
    assert len(set(groups.tolist())) == 7
    assert group_ids([]).shape == (0,)


def test_short_texts_are_grouped_by_equality_only() -> None:
    texts = [
        "What is 12 + 13?",
        "What is 12 + 14?",
        "What is 12 - 13?",
        "Capital of Mali",
        "Capital of Malta",
        "日本は?",
    ]
    assert len(set(group_ids(texts).tolist())) == len(texts)


@pytest.mark.parametrize("position", range(len(PROMPT.split())))
def test_one_changed_word_stays_in_the_group(position: int, words: list[str]) -> None:
    changed = PROMPT.split()
    assert len(changed) >= 30
    changed[position] = "bicycle"
    other = " ".join(words[:30])
    first, second, third = group_ids([PROMPT, " ".join(changed), other])
    assert first == second != third


def test_every_planted_near_duplicate_is_found_among_many(words: list[str]) -> None:
    rng = np.random.default_rng(1)
    originals = [rng.choice(words, 40).tolist() for _ in range(300)]
    copies = [[*text[:20], "changed", *text[21:]] for text in originals]
    groups = group_ids([" ".join(text) for text in originals + copies])
    assert (groups[:300] == groups[300:]).all()
    assert len(set(groups.tolist())) == 300


def test_similarity_chains_and_a_shared_half_is_not_a_duplicate(words: list[str]) -> None:
    start, middle, end = words[:60], words[60:66] + words[6:60], words[60:66] + words[6:54] + words[66:72]
    half = words[:30] + words[100:130]
    groups = group_ids([" ".join(text) for text in (start, middle, end, half)])
    assert groups[0] == groups[1] == groups[2] != groups[3]
    assert len(set(group_ids([" ".join(start), " ".join(end)]).tolist())) == 2  # only the middle joins them


def test_groups_do_not_depend_on_row_order_or_process(words: list[str]) -> None:
    rng = np.random.default_rng(2)
    texts = [" ".join(rng.choice(words, 12)) for _ in range(50)] + [PROMPT, PROMPT + " please", ""]
    order = rng.permutation(len(texts))
    groups = group_ids(texts)
    assert (group_ids([texts[index] for index in order]) == groups[order]).all()

    code = (
        "import json, sys\nfrom nexttoken.data.near_duplicates import group_ids\n"
        "print(group_ids(json.load(sys.stdin)).tolist())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    fresh = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(texts),
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(fresh.stdout) == groups.tolist()


def test_grouping_is_fast_with_long_and_repeated_texts(words: list[str]) -> None:
    rng = np.random.default_rng(3)
    template = [f"{PROMPT}, about topic number {number}" for number in range(1500)]  # one dense cluster
    texts = [" ".join(rng.choice(words, 60)) for _ in range(1500)] + template + ["word " * 40_000] * 200
    began = time.process_time()
    groups = group_ids(texts)
    assert time.process_time() - began < 20  # 57,000 rows in a minute
    assert len(set(groups[1500:3000].tolist())) == 1


def test_sketches_find_similar_texts_and_estimate_their_similarity():
    rng = np.random.default_rng(0)
    for _ in range(20):
        text = "".join(chr(0x4E00 + int(point)) for point in rng.integers(0, 300, 150))
        other = text[:70] + "".join(chr(0x3400 + int(point)) for point in rng.integers(0, 300, 8)) + text[78:]
        sketches = sketch([text, other, text], width=3, bands=16, rows=8)
        exact = jaccard(shingles(text, 3), shingles(other, 3))
        assert abs((sketches.values[0] == sketches.values[1]).mean() - exact) < 0.2
        assert (sketches.keys[0] == sketches.keys[2]).all()
    assert not sketch(["あ", ""], width=3, bands=4, rows=2).keys.any()


def test_a_text_does_not_share_runs_with_its_neighbour():
    alone = sketch(["山川海空雲"], width=3, bands=8, rows=2).keys
    assert (sketch(["花鳥", "山川海空雲", "", "風月"], width=3, bands=8, rows=2).keys[1] == alone[0]).all()
