"""`python -m nexttoken new` guesses a competition's configuration from its tables and never replaces a file."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings, strategies
from omegaconf import OmegaConf

from nexttoken.commands import new
from nexttoken.errors import UserError
from nexttoken.prompts import Prompt
from nexttoken.tasks.table import Table
from nexttoken.types import Example
from support.commands import refusal
from support.training import REPOSITORY

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A folder with a conf/ that the command takes for a checkout's."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "train.yaml").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, train: dict, test: dict, sample: dict | None, ending: str = ".csv") -> Path:
    folder.mkdir()
    for name, table in (("train", train), ("test", test), ("sample_submission", sample)):
        if table is not None:
            frame = pd.DataFrame(table)
            if ending == ".parquet" and name != "sample_submission":
                frame.to_parquet(folder / f"{name}.parquet")
            elif ending == ".jsonl" and name != "sample_submission":
                frame.to_json(folder / f"{name}.jsonl", orient="records", lines=True)
            else:
                frame.to_csv(folder / f"{name}.csv", index=False)
    return folder


def guessed(folder: Path, *arguments: str) -> dict:
    """The configuration that the command writes, whose task reads the files it was guessed from."""
    new.main(["name=made", f"input_dir={folder}", *arguments])
    config = yaml.safe_load(Path("conf/task/made.yaml").read_text(encoding="utf-8"))
    task = {key: value for key, value in config["task"].items() if key != "_target_"}
    table = Table(**task, input_dir=config["input_dir"])
    assert table.read("train")
    assert table.read("test")
    return config


def rows(number: int, first: int = 0) -> dict:
    """Ids, texts of many words, and columns that are no texts."""
    places = range(first, first + number)
    return {
        "key": [f"r{place}" for place in places],
        "body": [" ".join(WORDS[int(digit)] for digit in f"{place:03d}") for place in places],
        "topic": [WORDS[place % 3] for place in places],
        "made_at": [f"2024-01-{place % 28 + 1:02d}" for place in places],
        "page": [f"https://example.org/{place}" for place in places],
        "user_id": [place % 7 for place in places],
        "score": [place * 1.5 for place in places],
        "source": ["web" for _ in places],
    }


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".jsonl"])
def test_two_classes_and_a_sample_of_numbers(checkout, ending, capsys):
    train = rows(30) | {"broken": [place % 2 for place in range(30)]}
    sample = {"key": rows(5, 30)["key"], "broken": [0.5] * 5}
    config = guessed(write(checkout / "data", train, rows(5, 30), sample, ending))
    assert config["task"] == {
        "_target_": "nexttoken.tasks.table.Table",
        "name": "made",
        "id": "key",
        "label": "broken",
        "fields": ["body", "topic"],
        "classes": {"0": "No", "1": "Yes"},
        "group_by": ["body"],
        "metric": "auc",
        "submission": {"broken": 'probability("1")'},
    }
    assert config["defaults"] == [{"override /prompt": "made"}]
    said = capsys.readouterr().out
    assert "not shown, dates: made_at\n" in said
    assert "not shown, addresses: page\n" in said
    assert "not shown, ids: user_id\n" in said
    assert "not shown, always the same: source\n" in said
    assert "problem" not in said
    assert all(len(line) <= 100 for line in said.splitlines())


def test_the_written_task_is_short_and_its_guesses_are_marked(checkout):
    train = rows(30) | {"broken": [place % 2 for place in range(30)]}
    guessed(write(checkout / "data", train, rows(5, 30), {"key": rows(5, 30)["key"], "broken": [0.5] * 5}))
    lines = Path("conf/task/made.yaml").read_text().splitlines()
    assert len(lines) <= 15
    assert "  label: broken # guessed: the sample's column" in lines
    prompt = yaml.safe_load(Path("conf/prompt/made.yaml").read_text())
    assert prompt["user"] == "### body\n{{ body[0] }}\n### topic\n{{ topic[0] }}\n"
    assert prompt["labels"] == "names"


def test_labels_in_order_are_a_ranking(checkout):
    labels = [f"c{place % 12:02d}" for place in range(60)]
    sample = {"key": rows(5, 60)["key"], "topic_label": ["c00 c01 c02"] * 5}
    config = guessed(write(checkout / "data", rows(60) | {"topic_label": labels}, rows(5, 60), sample))
    assert (config["task"]["metric"], config["task"]["submission"]) == ("map_at(3)", {"topic_label": "best(3)"})
    assert "classes" not in config["task"]
    assert yaml.safe_load(Path("conf/prompt/made.yaml").read_text())["labels"] == "letters"


def test_many_classes_are_scored_by_their_texts(checkout):
    train = rows(96) | {"label": [f"a name {place % 48}" for place in range(96)]}
    config = guessed(write(checkout / "data", train, rows(5, 96), {"key": rows(5, 96)["key"], "label": ["x"] * 5}))
    assert {"override /head": "candidates"} in config["defaults"]
    assert config["task"]["submission"] == {"label": "best"}


def test_columns_of_numbers_are_votes_and_a_pair_changes_places(checkout):
    train = {"id": [*range(12)], "prompt": [*WORDS, "p q", "r s"]}
    train |= {f"answer_{end}": [f"{end} {place} word" for place in range(12)] for end in "ab"}
    test = train | {"id": [*range(50, 62)]}
    votes = {"wins_a": [1, 0, 2] * 4, "wins_b": [0, 3, 2] * 4, "wins_tie": [0, 0, 1] * 4}
    sample = {"id": test["id"], **dict.fromkeys(votes, [1 / 3] * 12)}
    config = guessed(write(checkout / "data", train | votes, test, sample))
    assert config["task"]["votes"] == [*votes]
    assert config["task"]["classes"] == {"wins_a": "A", "wins_b": "B", "wins_tie": "tie"}
    assert config["task"]["swap"] == {"wins_a": "wins_b"}
    assert config["task"]["group_by"] == ["prompt"]
    assert {"override /train_transforms": "both_orders"} in config["defaults"]


def test_columns_that_end_in_a_class_are_its_probability(checkout):
    train = rows(20) | {"mood": ["sad", "glad"] * 10}
    sample = {"key": rows(5, 20)["key"], "p_glad": [0.5] * 5, "p_sad": [0.5] * 5}
    config = guessed(write(checkout / "data", train, rows(5, 20), sample), "label=mood")
    assert config["task"]["submission"] == {"p_glad": 'probability("glad")', "p_sad": 'probability("sad")'}


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        ("sample-map", {"id": "row_id", "label": ["Category", "Misconception"], "metric": "map_at(3)"}),
        ("sample-eedi", {"id": ["QuestionId", "Answer"], "label": "MisconceptionId", "metric": "map_at(25)"}),
        ("sample-wsdm", {"id": "id", "label": "winner", "swap": {"model_a": "model_b"}, "metric": "accuracy"}),
    ],
)
def test_the_files_of_known_competitions(checkout, sample, expected):
    task = guessed(REPOSITORY / "input" / sample)["task"]
    assert {key: task[key] for key in expected} == expected


def test_other_names_of_files_are_written_down(checkout):
    folder = write(checkout / "data", rows(20) | {"y": ["u", "v"] * 10}, rows(5, 20), None)
    (folder / "train.csv").rename(folder / "my_train_v2.csv")
    task = guessed(folder)["task"]
    assert (task["train_file"], task["label"], task["id"]) == ("my_train_v2.csv", "y", "key")


NAMES = ["body text", "class", "in", "passage{{x}}", "ä", "1st", 'quote"d', "yes", "context", "labels", "a: b", "#c"]


def test_any_name_of_a_column_is_shown(checkout):
    columns = {name: [f"{place} words of {name}" for place in range(20)] for name in NAMES}
    train = {"key": [*range(20)], **columns, "y": ["on", "1e5"] * 10}
    task = guessed(write(checkout / "data", train, {**train, "key": [*range(50, 70)]} | {"y": None}, None), "label=y")
    prompt = yaml.safe_load(Path("conf/prompt/made.yaml").read_text(encoding="utf-8"))
    prompt.pop("_target_")
    own = {key: value for key, value in task["task"].items() if key != "_target_"}
    table = Table(**own, input_dir=task["input_dir"])
    assert table.classes == ("1e5", "on")
    text = Prompt(**prompt).for_classes(table.classes).render(table.read("train")[7])[0].content
    assert all(f"7 words of {name}\n" in text for name in NAMES)


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ([place / 7 for place in range(30)], "is a measure such as"),
        ([f"answer {place}" for place in range(30)], "has 30 different values in 30 rows; a table predicts one of"),
        (["same"] * 30, "has 1 different values in the training rows; expected two"),
    ],
)
def test_answers_that_are_no_classes_are_refused(checkout, capsys, label, words):
    folder = write(checkout / "data", rows(30) | {"y": label}, rows(5, 30), None)
    assert words in refusal(capsys, "new", "name=made", f"input_dir={folder}")
    assert not Path("conf/task").exists()


def test_several_answers_a_row_are_refused(checkout, capsys):
    train = rows(4) | {"toxic": [0, 1, 1, 0], "rude": [0, 1, 0, 1]}
    sample = {"key": rows(2, 4)["key"], "toxic": [0.5] * 2, "rude": [0.5] * 2}
    folder = write(checkout / "data", train, rows(2, 4), sample)
    line = refusal(capsys, "new", "name=made", f"input_dir={folder}")
    assert line.startswith("2 of 4 training rows have none or several of toxic, rude; a table has one answer a row")


def test_files_are_never_replaced_without_being_asked(checkout, capsys):
    folder = write(checkout / "data", rows(20) | {"y": ["u", "v"] * 10}, rows(5, 20), None)
    Path("conf/prompt").mkdir()
    Path("conf/prompt/made.yaml").write_text("mine")
    line = refusal(capsys, "new", "name=made", f"input_dir={folder}")
    assert line == "conf/prompt/made.yaml exists already; choose another name=..., or add overwrite=true"
    assert not Path("conf/task").exists()
    new.main(["name=made", f"input_dir={folder}", "overwrite=true"])
    assert "mine" not in Path("conf/prompt/made.yaml").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["name=a/b", "input_dir=x"], "name='a/b' is not accepted"),
        (["name=a b", "input_dir=x"], "name='a b' is not accepted: expected letters, digits"),
        (["input_dir=x"], "name= is missing; write name=rules"),
        (["name=x"], "input_dir= is missing"),
        (["name=x", "input_dir=nowhere"], "nowhere has no train with one of the endings"),
        (["name=x", "input_dir=data", "label=z"], "label=z: data/train.csv has no z; "),
        (["name=x", "input_dir=data", "id=kee"], "id=kee: data/train.csv has no such column; did you mean 'key'?"),
    ],
)
def test_mistakes_are_one_line(checkout, capsys, arguments, words):
    write(checkout / "data", rows(20) | {"y": ["u", "v"] * 10}, rows(5, 20), None)
    assert words in refusal(capsys, "new", *arguments)
    assert not Path("conf/task").exists()


def test_problems_of_the_rows_are_said(checkout, capsys):
    train = rows(20) | {"y": ["u", "v"] * 10}
    train["key"][3] = "r0"
    new.main(["name=made", f"input_dir={write(checkout / 'data', train, rows(5, 20), None)}", "id=key"])
    assert "problem: data/train.csv: 1 row is faulty" in capsys.readouterr().out.replace(str(checkout) + "/", "")


def test_it_is_run_where_conf_is(tmp_path):
    call = [sys.executable, "-m", "nexttoken", "new", "name=x", "input_dir=y"]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "conf/train.yaml is not there; run the command where train.py and conf/ are\n"


def test_nothing_heavy_is_imported():
    heavy = {"torch", "transformers", "lightning", "hydra", "sklearn", "matplotlib"}
    code = f"import sys, json, nexttoken.commands.new; print(json.dumps([*({heavy!r} & sys.modules.keys())]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


CELLS = ["", "0", "1", "0.5", "yes", "a b", "lorem ipsum", "2020-01-01", "http://x.y/z", "[1]", "${x}", "1e5", "{{"]
ODD_NAMES = ["", "id", "text", "a b", "x_a", "x_b", "label", "né", "a\nb", "{{x}}", "${z}", "q'\"", "1", "true", "{%"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=strategies.data())
def test_any_table_is_guessed_or_refused_in_one_line(checkout, drawn):
    """The files can be read again by YAML and by the configuration's own reader, as the same values."""
    names = drawn.draw(strategies.lists(strategies.sampled_from(ODD_NAMES), min_size=1, max_size=6, unique=True))
    column = strategies.lists(strategies.sampled_from(CELLS), min_size=6, max_size=6)
    train = {
        name: [f"{name} {place}" for place in range(6)] if place % 2 else drawn.draw(column)
        for place, name in enumerate(names)
    }
    test = {name: train[name] for name in names[: drawn.draw(strategies.integers(0, len(names)))]}
    shutil.rmtree(checkout / "data", ignore_errors=True)
    folder = write(checkout / "data", train, test or None, None)
    try:
        new.main(["name=made", f"input_dir={folder}", "overwrite=true"])
    except UserError as refused:
        assert len(str(refused).splitlines()) == 1  # noqa: PT017
        return
    for path in (Path("conf/task/made.yaml"), Path("conf/prompt/made.yaml")):
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert OmegaConf.to_container(OmegaConf.load(path), resolve=True).keys() == config.keys()
    task = OmegaConf.to_container(OmegaConf.load("conf/task/made.yaml"), resolve=True)["task"]
    assert {*task["fields"]} <= {*names}
    prompt = OmegaConf.to_container(OmegaConf.load("conf/prompt/made.yaml"), resolve=True)
    shown = Prompt(prompt["user"], prompt["answer_cue"], ["x", "y"])
    example = Example("", {name: (f"<{name}>",) for name in task["fields"]})
    assert all(f"<{name}>" in shown.render(example)[0].content for name in task["fields"])
