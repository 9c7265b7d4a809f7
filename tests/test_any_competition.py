"""Made-up competitions by their configuration alone: from `new` over a training to a validated submission."""

import random
import shutil
from pathlib import Path

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from nexttoken import pipeline
from nexttoken.commands import data, new
from nexttoken.errors import UserError
from support.training import REPOSITORY, TINY

MAX_LINES = 15  # of a task's YAML


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A folder with this repository's conf/ and train.py, in which nothing of the repository is written."""
    shutil.copytree(REPOSITORY / "conf", tmp_path / "conf")
    for name in ("train.py", "predict.py"):
        shutil.copy(REPOSITORY / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def composed(entry: str, *overrides: str):
    with initialize_config_dir(str(Path("conf").resolve()), version_base="1.3"):
        return compose(entry, [*overrides])


def write(folder: Path, train: list[dict], test: list[dict], sample: list[dict]) -> None:
    folder.mkdir()
    for name, rows in (("train", train), ("test", test), ("sample_submission", sample)):
        pd.DataFrame(rows).to_csv(folder / f"{name}.csv", index=False)


def entered(name: str, *overrides: str) -> pd.DataFrame:
    """The submission of a competition after `new`, `data`, a training of a step or a few, and a prediction."""
    new.main([f"name={name}", f"input_dir={name}-files"])
    assert len(Path(f"conf/task/{name}.yaml").read_text().splitlines()) <= MAX_LINES
    data.main([f"task={name}"])
    tiny = [one for one in TINY if not one.startswith("input_dir=")]
    pipeline.train(composed("train", f"task={name}", *tiny, "logger=none", *overrides))
    path = pipeline.predict(composed("predict"))
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def test_a_competition_of_two_classes(checkout):
    draw = random.Random(0)
    goods, manners = ["lamps", "bags", "chairs"], ["Buy", "Repair", "Paint"]

    def row(number: int) -> dict:
        words = [draw.choice(manners), "these", draw.choice(goods), f"at number {draw.randrange(1000)}"]
        return {"row_id": number, "body": " ".join(words), "place": draw.choice(["shop", "street"])}

    train = [one | {"is_advert": int(one["body"].startswith("Buy"))} for one in map(row, range(60))]
    test = [*map(row, range(60, 70))]
    write(checkout / "adverts-files", train, test, [{"row_id": one["row_id"], "is_advert": 0.5} for one in test])
    submission = entered("adverts")
    assert list(submission) == ["row_id", "is_advert"]
    assert submission["row_id"].tolist() == [str(number) for number in range(60, 70)]
    assert submission["is_advert"].astype(float).between(0, 1).all()


def test_a_competition_of_48_labels(checkout, capsys):
    draw = random.Random(0)
    labels = [f"{area}: {fault}" for area in ["door", "roof", "lamp", "wall"] for fault in "abcdefghijkl"]

    def row(number: int) -> dict:
        area, fault = labels[number % 48].split(": ")
        return {"ticket": f"t{number}", "text": f"the {area} has the fault {fault} in flat {draw.randrange(1000)}"}

    train = [one | {"topic": labels[number % 48]} for number, one in enumerate(map(row, range(144)))]
    test = [*map(row, range(144, 160))]
    write(checkout / "repairs-files", train, test, [{"ticket": one["ticket"], "topic": labels[0]} for one in test])
    submission = entered("repairs", "candidates.sampled=3", "limit_rows=16")
    assert "classes have" not in capsys.readouterr().out
    assert submission["ticket"].tolist() == [one["ticket"] for one in test]
    assert set(submission["topic"]) <= set(labels)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ("train_transforms=both_orders", "needs pairs, and the task's examples are not pairs of answers"),
        ("train_transforms=options", "needs options, and the task's examples have no options"),
        ("inference=swap_averaged", "needs pairs, and the task's examples are not pairs of answers"),
        ("inference=rotated", "needs options, and the task's examples have no options"),
    ],
)
def test_orders_that_a_table_does_not_have_are_refused_before_anything_is_read(checkout, choice, words):
    given = ["task=table", "input_dir=is-never-read", "task.classes=[yes,no]", choice, "logger=none"]
    with pytest.raises(UserError, match=words) as refused:
        pipeline.train(composed("train", *given))
    assert "\n" not in str(refused.value)
    assert not Path("output").exists()


@pytest.mark.filterwarnings("error:The number of unique classes")
def test_folds_are_possible_where_labels_are_seen_once_and_a_class_never(checkout):
    labels = [f"common {number % 40}" if number < 120 else f"once {number}" for number in range(145)]
    train = [{"id": number, "text": f"report {number * number}", "label": one} for number, one in enumerate(labels)]
    test = [{"id": 200, "text": "report 200"}]
    write(checkout / "made", train, test, [{"id": 200, "label": labels[0]}])
    given = ["task=table", "input_dir=made", "task.id=id", "task.fields=text", "task.label=label", *TINY[1:]]
    given += ["head=candidates", "candidates.sampled=2", f"task.classes={[*dict.fromkeys(labels), 'never']}"]
    pipeline.train(composed("train", *given, "logger=none"))
    assert pd.read_csv(pipeline.predict(composed("predict")))["label"].isin([*labels, "never"]).all()
