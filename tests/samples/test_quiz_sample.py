"""The sample quiz: the tracked files are what the generator writes, and passages answer what nothing else does."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chi2

from nexttoken.data.near_duplicates import group_ids
from nexttoken.errors import UserError
from samples.quiz import (
    COLOURS,
    GENRES,
    MAX_ROWS,
    NUM_NAMES,
    SPARE_RATE,
    TOLD_SHARE,
    TRAIN_PER_TEST,
    main,
    write_sample_quiz,
)
from support.tracked_samples import assert_same_files

TRACKED = Path(__file__).parents[2] / "input" / "sample-quiz"
FILES = ("train.jsonl", "test.jsonl", "truth.jsonl", *(f"corpus/{genre}.jsonl" for genre in GENRES))


def rows_of(name: str, folder: Path = TRACKED) -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def truth() -> dict[str, dict]:
    return {row["id"]: row for row in rows_of("truth.jsonl")}


@pytest.fixture(scope="module")
def rows(truth: dict[str, dict]) -> list[dict]:
    """Train and test rows with their answers and the ids of their passages."""
    return [row | truth[row["id"]] for name in ("train.jsonl", "test.jsonl") for row in rows_of(name)]


@pytest.fixture(scope="module")
def passages() -> dict[str, str]:
    return {row["id"]: row["text"] for genre in GENRES for row in rows_of(f"corpus/{genre}.jsonl")}


def test_tracked_files_are_a_fresh_generation_byte_for_byte(tmp_path: Path) -> None:
    main([f"output_dir={tmp_path}"])
    # Nothing is left of an earlier draft: it would be found as a passage.
    assert_same_files(tmp_path, TRACKED, FILES, "*.jsonl")


def test_another_seed_gives_another_quiz(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_sample_quiz(tmp_path / str(seed), seed, num_train=40)
    assert (tmp_path / "1" / "train.jsonl").read_bytes() != (tmp_path / "2" / "train.jsonl").read_bytes()


def test_the_files_stay_small() -> None:
    assert sum((TRACKED / name).stat().st_size for name in FILES) < 2_000_000


def test_rows_are_well_formed(rows: list[dict], truth: dict[str, dict], passages: dict[str, str]) -> None:
    assert all(row["answer"] is None for row in rows_of("test.jsonl"))
    assert all(row["answer"] == truth[row["id"]]["answer"] for row in rows_of("train.jsonl"))
    assert [row["id"] for row in rows] == list(truth)
    for row in rows:
        assert list(row) == ["id", "genre", "question", "options", "answer", "passage"]
        assert row["genre"] in GENRES
        assert 2 <= len(set(row["options"])) == len(row["options"]) <= 5
        assert 0 <= row["answer"] < len(row["options"])
        assert row["passage"] is None or row["passage"] in passages


def test_every_genre_has_questions_of_both_kinds(rows: list[dict]) -> None:
    told = Counter(row["genre"] for row in rows if row["passage"])
    for genre, number in Counter(row["genre"] for row in rows).items():
        assert number == pytest.approx(len(rows) / len(GENRES), abs=1)
        assert 0.44 < told[genre] / number < 0.5, "fewer than half need a search"


def test_no_two_questions_share_a_group_or_a_name(rows: list[dict], passages: dict[str, str]) -> None:
    """So folds split no question from its like, and what is learnt of a name in training answers no other row."""
    assert len(set(group_ids([row["question"] for row in rows]))) == len(rows)
    common = {word for row in rows_of("train.jsonl")[:1000] for word in row["question"].split()[1:-1]}
    names = Counter(word.strip("?") for row in rows for word in row["question"].split() if word not in common)
    assert max(names[word] for word in names if word[0].isupper() and word not in ("Which", "How", "In")) == 1
    assert len(set(passages.values())) == len(passages)


def test_a_passage_gives_the_right_option_and_no_wrong_one(rows: list[dict], passages: dict[str, str]) -> None:
    for row in rows:
        if row["passage"]:
            words = passages[row["passage"]].replace(",", "").rstrip(".").split()
            assert [option for option in row["options"] if option in words] == [row["options"][row["answer"]]]


def test_without_its_passage_a_fact_is_a_guess(rows: list[dict]) -> None:
    """Options are all of one kind, and neither the place nor the word of one makes it right more often."""
    told = [row for row in rows if row["passage"]]
    assert all(set(row["options"]) <= set(COLOURS) for row in told)
    places, words, expected_places, expected_words = Counter(), Counter(), Counter(), Counter()
    for row in told:
        places[row["answer"]] += 1
        words[row["options"][row["answer"]]] += 1
        for place, option in enumerate(row["options"]):
            expected_places[place] += 1 / len(row["options"])
            expected_words[option] += 1 / len(row["options"])
    for found, expected in ((places, expected_places), (words, expected_words)):
        statistic = sum((found[key] - expected[key]) ** 2 / expected[key] for key in expected)
        assert statistic < chi2.ppf(0.999, len(expected) - 1)


def test_common_knowledge_has_one_right_option(rows: list[dict]) -> None:
    for row in rows:
        if not row["passage"]:
            own_kind = [place for place, option in enumerate(row["options"]) if option in GENRES[row["genre"]].words]
            assert own_kind == [row["answer"]]


def test_the_question_alone_finds_its_passage(rows: list[dict], passages: dict[str, str]) -> None:
    import bm25s

    told = [row for row in rows if row["passage"]]
    index = bm25s.BM25(corpus=list(passages))
    index.index(bm25s.tokenize(list(passages.values()), show_progress=False), show_progress=False)
    queries = bm25s.tokenize([row["question"] for row in told], show_progress=False)
    found = index.retrieve(queries, k=1, show_progress=False).documents[:, 0]
    assert np.mean(found == np.array([row["passage"] for row in told])) == 1.0


def test_the_largest_quiz_has_enough_names() -> None:
    most = MAX_ROWS + MAX_ROWS // TRAIN_PER_TEST
    assert most * (1 + TOLD_SHARE * SPARE_RATE) <= NUM_NAMES


@pytest.mark.parametrize("argument", ["rows=39", "rows=many", "rows=4000000", "seed=-1", "row=20"])
def test_wrong_arguments_are_one_line_and_write_nothing(argument: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=argument.split("=")[0]) as error:
        main([f"output_dir={tmp_path / 'new'}", argument])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "new").exists()
