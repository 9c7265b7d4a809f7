"""The sample competition: the tracked files are what the generator writes, and its labels follow the stated truth."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chi2

from nexttoken.errors import UserError
from samples import preference_phrases as phrases
from samples.preferences import WINNERS, main, true_probs, write_sample

TRACKED = Path(__file__).parents[2] / "input" / "sample-preferences"
FILES = ("train.csv", "test.csv", "sample_submission.csv", "truth.csv")
POINTS = phrases.REMARK_POINTS


def rows_of(name: str, folder: Path = TRACKED) -> list[dict[str, str]]:
    with (folder / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def quality(cell: str) -> float:
    """The documented rule, read back from the text: the mean over the remarks that the turns begin with."""
    words = re.findall(r"(?:^|\n)(\w+) answer:", "\n".join(turn or "" for turn in json.loads(cell)))
    return sum(POINTS[word] for word in words) / len(words) if words else 0.0


@pytest.fixture(scope="module")
def train() -> list[dict[str, str]]:
    return rows_of("train.csv")


@pytest.fixture(scope="module")
def truth() -> dict[str, tuple[float, ...]]:
    return {row["id"]: tuple(float(row[name]) for name in WINNERS) for row in rows_of("truth.csv")}


def test_tracked_files_are_a_fresh_generation_byte_for_byte(tmp_path: Path) -> None:
    write_sample(tmp_path, seed=0, num_train=2000)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (TRACKED / name).read_bytes(), name


def test_another_seed_gives_another_competition(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_sample(tmp_path / str(seed), seed, num_train=40)
    assert (tmp_path / "1" / "train.csv").read_bytes() != (tmp_path / "2" / "train.csv").read_bytes()


def test_the_files_stay_under_a_megabyte() -> None:
    assert sum((TRACKED / name).stat().st_size for name in FILES) < 1_000_000


def test_headers_are_kaggles() -> None:
    headers = {name: (TRACKED / name).read_text(encoding="utf-8").split("\n", 1)[0] for name in FILES}
    winners = "winner_model_a,winner_model_b,winner_tie"
    assert headers == {
        "train.csv": f"id,model_a,model_b,prompt,response_a,response_b,{winners}",
        "test.csv": "id,prompt,response_a,response_b",
        "sample_submission.csv": f"id,{winners}",
        "truth.csv": f"id,{winners}",
    }


def test_ids_are_unique_and_the_submission_has_those_of_test(train: list[dict[str, str]]) -> None:
    train_ids, test_ids = ([row["id"] for row in rows] for rows in (train, rows_of("test.csv")))
    assert (len(train_ids), len(test_ids)) == (2000, 250)
    assert [row["id"] for row in rows_of("sample_submission.csv")] == test_ids
    truth_ids = [row["id"] for row in rows_of("truth.csv")]
    assert len(set(truth_ids)) == len(truth_ids)
    assert sorted(truth_ids) == sorted(train_ids + test_ids)


@pytest.mark.parametrize("name", ["train.csv", "test.csv"])
def test_the_truth_follows_from_what_can_be_read(name: str, truth: dict[str, tuple[float, ...]]) -> None:
    for row in rows_of(name):
        expected = true_probs(quality(row["response_a"]), quality(row["response_b"]))
        assert truth[row["id"]] == expected
        assert sum(expected) == pytest.approx(1, abs=1e-12)


def test_true_probs_are_davidsons() -> None:
    assert true_probs(0, 0) == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert true_probs(1, 0) == pytest.approx((4 / 7, 1 / 7, 2 / 7))  # strengths 4 and 1, tie sqrt(4 * 1)
    assert true_probs(-0.5, 2) == pytest.approx(tuple(true_probs(2, -0.5)[index] for index in (1, 0, 2)))


def test_labels_agree_with_the_truth(train: list[dict[str, str]], truth: dict[str, tuple[float, ...]]) -> None:
    """Pearson's chi-square over rows of the same true probabilities, where at least 5 of each label are expected."""
    cells: dict[tuple[float, ...], np.ndarray] = {}
    for row in train:
        label = np.array([int(row[name]) for name in WINNERS])
        assert sorted(label) == [0, 0, 1]
        cells[truth[row["id"]]] = cells.get(truth[row["id"]], np.zeros(3)) + label
    statistic, degrees = 0.0, 0
    for probs, counts in cells.items():
        expected = np.array(probs) * counts.sum()
        if expected.min() >= 5:
            statistic += ((counts - expected) ** 2 / expected).sum()
            degrees += 2
    assert degrees >= 10
    assert chi2.ppf(0.001, degrees) < statistic < chi2.ppf(0.999, degrees)


def test_identical_answers_are_equally_good(train: list[dict[str, str]], truth: dict[str, tuple[float, ...]]) -> None:
    identical = [truth[row["id"]] for row in train if row["response_a"] == row["response_b"]]
    assert len(identical) >= 50
    assert all(probs[0] == probs[1] for probs in identical)


def test_neither_side_nor_length_gives_the_winner_away(train: list[dict[str, str]]) -> None:
    better = np.array([quality(row["response_a"]) - quality(row["response_b"]) for row in train])
    longer = np.array([len(row["response_a"]) - len(row["response_b"]) for row in train])
    assert abs(better.mean()) < 4 * better.std() / np.sqrt(len(train))
    assert abs(np.corrcoef(better, longer)[0, 1]) < 4 / np.sqrt(len(train))


def test_it_holds_what_real_files_hold(train: list[dict[str, str]]) -> None:
    prompts = [row["prompt"] for row in train]
    turns = [turn for row in train for side in "ab" for turn in json.loads(row[f"response_{side}"])]
    assert 0.1 < np.mean([len(json.loads(prompt)) > 1 for prompt in prompts]) < 0.2
    assert turns.count(None) >= 20
    assert {"NA", "null", "None", ""} <= set(turns)
    assert any("\U0001f600" in (turn or "") for turn in turns)
    assert any("\n" in (turn or "") and "- read" in (turn or "") for turn in turns)
    assert any('"' in (turn or "") for turn in turns)
    assert len(set(prompts)) < 0.8 * len(prompts)
    distinct = {re.sub(r"\W+", " ", prompt.lower()) for prompt in prompts}
    assert len(distinct) < len(set(prompts)) - 50  # near-duplicates: the same words, typed otherwise
    assert all(len(json.loads(row["prompt"])) == len(json.loads(row["response_a"])) for row in train)


def test_models_differ_in_mean_quality(train: list[dict[str, str]]) -> None:
    points: dict[str, list[float]] = {model: [] for model in phrases.MODELS}
    for row in train:
        assert row["model_a"] != row["model_b"]
        for side in "ab":
            points[row[f"model_{side}"]].append(quality(row[f"response_{side}"]))
    means = [np.mean(points[model]) for model in phrases.MODELS]
    assert np.corrcoef(means, range(len(means)))[0, 1] > 0.8


@pytest.mark.parametrize("argument", ["rows=7", "rows=many", "seed=-1", "row=20"])
def test_wrong_arguments_are_one_line_and_write_nothing(argument: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=argument.split("=")[0]) as error:
        main([f"output_dir={tmp_path / 'new'}", argument])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "new").exists()
