"""The samples of competitions that are tables: small, generated again as they are, and hard where the real ones are."""

from pathlib import Path

import pandas as pd
import pytest

from nexttoken.errors import UserError
from samples import eedi, jigsaw_rules, map, wsdm
from support.tracked_samples import assert_same_files

INPUT = Path(__file__).parents[2] / "input"
MAINS = {"map": map.main, "jigsaw-rules": jigsaw_rules.main, "eedi": eedi.main, "wsdm": wsdm.main}
CSVS = {
    "map": ("train.csv", "test.csv", "sample_submission.csv", "truth.csv"),
    "jigsaw-rules": ("train.csv", "test.csv", "sample_submission.csv", "truth.csv"),
    "eedi": ("train.csv", "test.csv", "sample_submission.csv", "answers.csv", "misconception_mapping.csv"),
    "wsdm": ("sample_submission.csv", "truth.csv"),
}


def table(name: str) -> pd.DataFrame:
    path = INPUT / f"sample-{name}"
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, dtype=str, keep_default_na=False)


@pytest.mark.parametrize("name", MAINS)
def test_tracked_files_are_a_fresh_generation(name, tmp_path):
    MAINS[name]([f"output_dir={tmp_path}"])
    assert_same_files(tmp_path, INPUT / f"sample-{name}", CSVS[name], "*.csv")
    for fresh in tmp_path.glob("*.parquet"):  # their bytes follow the writer's version
        pd.testing.assert_frame_equal(pd.read_parquet(fresh), table(f"{name}/{fresh.name}"))


@pytest.mark.parametrize("name", MAINS)
def test_a_sample_is_small(name):
    assert sum(path.stat().st_size for path in (INPUT / f"sample-{name}").iterdir()) <= 200_000


@pytest.mark.parametrize("name", MAINS)
def test_the_sample_submission_names_the_test_rows_once(name):
    test = table(f"{name}/test.parquet" if name == "wsdm" else f"{name}/test.csv")
    asked = table(f"{name}/sample_submission.csv").iloc[:, 0]
    ids = test.iloc[:, 0].astype(str)
    if name == "eedi":
        wrong = {row.QuestionId: [x for x in "ABCD" if x != row.CorrectAnswer] for row in test.itertuples()}
        ids = pd.Series([f"{row_id}_{letter}" for row_id, letters in wrong.items() for letter in letters])
    assert asked.tolist() == ids.tolist()
    assert asked.is_unique


@pytest.mark.parametrize("name", ["map", "jigsaw-rules", "wsdm"])
def test_the_truth_gives_each_row_a_probability_of_each_class(name):
    truth = table(f"{name}/truth.csv").set_index("id").astype(float)
    assert truth.index.is_unique
    assert truth.sum(axis=1).to_numpy() == pytest.approx(1)
    assert truth.to_numpy().min() >= 0


def test_map_labels_stay_with_their_question():
    train = table("map/train.csv")
    shown = ["row_id", "QuestionId", "QuestionText", "MC_Answer", "StudentExplanation"]
    assert list(train) == [*shown, "Category", "Misconception"]
    with_one = train[train["Misconception"] != "NA"]
    assert with_one.groupby("Misconception")["QuestionId"].nunique().max() == 1
    assert set(train["Category"] + ":" + train["Misconception"]) == {*table("map/truth.csv")} - {"id"}
    assert (train["Misconception"] == "NA").mean() < 0.75


def test_jigsaw_test_rows_know_rules_that_training_rows_lack_and_repeat_their_examples():
    train, test = table("jigsaw-rules/train.csv"), table("jigsaw-rules/test.csv")
    assert [*train] == [*test, "rule_violation"]
    assert (train["rule"].nunique(), test["rule"].nunique()) == (2, 6)
    assert set(train["rule"]) < set(test["rule"])
    examples = {cell for name in jigsaw_rules.EXAMPLES for cell in test[name]}
    assert 0.02 < test["body"].isin(examples).mean() < 0.2
    for _, rows in train.groupby("rule"):
        assert 0.3 < (rows["rule_violation"] == "1").mean() < 0.7


def test_eedi_asks_for_misconceptions_that_training_rows_lack():
    train, names = table("eedi/train.csv"), table("eedi/misconception_mapping.csv")
    labels = [name for name in train if name.startswith("Misconception")]
    seen = set(train[labels].to_numpy().ravel()) - {""}
    assert len(names) == names["MisconceptionName"].nunique() == 100
    assert 30 <= len(seen) <= 40
    unseen = ~table("eedi/answers.csv")["MisconceptionId"].isin(seen)
    assert 0.65 < unseen.mean() < 0.85
    for row in train.to_dict("records"):
        assert row[f"Misconception{row['CorrectAnswer']}Id"] == ""


def test_wsdm_names_models_and_languages_in_training_rows_only():
    train, test = table("wsdm/train.parquet"), table("wsdm/test.parquet")
    shown = ["id", "prompt", "response_a", "response_b"]
    assert [*train] == [*shown, "winner", "model_a", "model_b", "language"]
    assert [*test] == [*shown, "scored"]
    assert set(train["winner"]) == {"model_a", "model_b"}
    assert set(train["language"]) == {"English", "German", "Spanish"}
    assert (train["model_a"] != train["model_b"]).all()
    truth = table("wsdm/truth.csv").set_index("id").loc[train["id"], "model_a"].astype(float).to_numpy()
    likely = (train["winner"] == "model_a").to_numpy() == (truth > 0.5)
    assert likely[truth != 0.5].mean() > 0.75


@pytest.mark.parametrize("name", MAINS)
def test_a_wrong_argument_is_one_line_and_writes_nothing(name, tmp_path):
    with pytest.raises(UserError, match="seed") as error:
        MAINS[name]([f"output_dir={tmp_path / 'new'}", "seed=-1"])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "new").exists()
