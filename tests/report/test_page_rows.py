"""The page's rows: which ones the views list, what of them is in the file, and that their texts do no harm."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from benchmarks.page_runs import write_sample_run
from nexttoken.build import build
from nexttoken.report.page.both_orders import BothOrders
from nexttoken.report.page.chapter import chapters_of
from nexttoken.report.page.chosen_rows import MAX_LISTED, MAX_ROWS, ChosenRows, find_views
from nexttoken.report.page.page_file import write_page
from nexttoken.report.page.row_texts import BUDGET, MAX_CHARACTERS, RowTexts, shown_text
from nexttoken.runs.read_all import read_all
from nexttoken.types import Example
from support.composed import composed
from support.finished_runs import CLASSES, write_run


def read_data(page, name="c1-rows-data"):
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.S)
    return json.loads(found[1])


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """The page of two runs of the sample's judgements, its data, and the first run's out-of-fold rows."""
    folder = tmp_path_factory.mktemp("runs") / "lmsys"
    for seed, (name, skill) in enumerate({"better": 1.6, "good": 1.2}.items()):
        write_sample_run(folder / name, "task=lmsys", skill=skill, seed=seed)
    written = write_page(folder, folder / "page.html", folder / "ledger.csv")
    rows = pd.concat([pd.read_csv(path, dtype={"id": str}) for path in sorted((folder / "better").glob("*/oof.csv"))])
    probs = rows[[*CLASSES]].to_numpy()
    rows["loss"] = -np.log(probs[np.arange(len(rows)), rows["label"]])
    rows["best"], rows["guess"] = probs.max(axis=1), probs.argmax(axis=1)
    rows["margin"] = rows["best"] - np.sort(probs, axis=1)[:, 1]
    return written.path.read_text(encoding="utf-8"), read_data(written.path.read_text(encoding="utf-8")), rows


@pytest.mark.parametrize(
    ("view", "keep", "by", "ascending"),
    [
        ("worst", "loss >= 0", "loss", False),
        ("certain", "guess != label", "best", False),
        ("uncertain", "loss >= 0", "margin", True),
    ],
)
def test_views_are_those_of_pandas(sample, view, keep, by, ascending):
    _, data, rows = sample
    expected = rows.query(keep).sort_values(by, ascending=ascending, kind="stable")["id"][:MAX_LISTED]
    assert [data["ids"][row] for row in data["views"][0][view]] == expected.tolist()


def test_answers_are_those_of_the_files(sample):
    _, data, rows = sample
    assert data["ids"] == rows["id"].tolist()
    number = len(rows)
    assert data["labels"] == rows["label"].tolist()
    assert data["guesses"][:number] == rows["guess"].tolist()
    np.testing.assert_allclose(data["losses"][:number], rows["loss"], atol=5.1e-5)
    np.testing.assert_allclose(
        np.reshape(data["probs"][: 3 * number], (number, 3)) / 10000, rows[[*CLASSES]], atol=5.1e-5
    )


def test_texts_are_those_of_the_rows(sample):
    page, data, _ = sample
    texts = {one.id: one.fields for one in build(composed("task=lmsys")).task.read("train")}
    names = [field["name"] for field in data["fields"]]
    for row in (0, 700, 1999):
        assert dict(zip(names, map(tuple, data["texts"][row]), strict=True)) == texts[data["ids"][row]]
    assert [field.get("side") for field in data["fields"]] == [None, 0, 1]
    assert len(page) < 2e6


def test_prompts_of_runs_without_a_tokenizer_are_missed_in_words(sample):
    _, data, _ = sample
    assert data["prompts"] == {}
    assert "tokenizer is not on this machine" in data["no_prompts"]


def test_rows_without_texts_are_shown_with_the_reason(tmp_path):
    labels = np.arange(60) % 3
    write_run(tmp_path / "lmsys" / "one", 0.5 * np.eye(3)[labels] + 0.5 / 3, labels, input_dir="nowhere")
    page = write_page(tmp_path, tmp_path / "page.html", tmp_path / "none").path.read_text(encoding="utf-8")
    data = read_data(page)
    assert len(data["ids"]) == 60
    assert not any(data["texts"])
    assert "The rows' texts are not shown: " in page


def test_flipped_rows_come_by_the_gap_between_the_orders():
    straight = np.array([[0.6, 0.4], [0.9, 0.1], [0.3, 0.7], [0.55, 0.45]])
    swapped = np.array([[0.4, 0.6], [0.2, 0.8], [0.1, 0.9], [np.nan, np.nan]])
    losses = -np.log(straight[:, 0])
    views = find_views(straight, losses, np.zeros(4, dtype=int), BothOrders(straight, swapped))
    assert views["flipped"].tolist() == [1, 0]
    assert "flipped" not in find_views(straight, losses, np.zeros(4, dtype=int))


def test_a_row_that_a_run_lacks_is_in_none_of_its_views(tmp_path):
    labels = np.arange(60) % 3
    for name, number in (("all", 4), ("half", 2)):
        write_run(tmp_path / "lmsys" / name, 0.5 * np.eye(3)[labels] + 0.5 / 3, labels)
        for fold in range(number, 4):
            (tmp_path / "lmsys" / name / f"fold{fold}" / "metrics.json").unlink()
    chapter = chapters_of(read_all(tmp_path / "lmsys").runs, ())[0]
    chosen = ChosenRows.of(chapter.runs)
    place = [run.name for run in chapter.runs].index("half")
    missing = np.flatnonzero(np.isnan(chosen.table.losses[place]))
    assert len(missing) == 30
    assert not set(missing) & {row for rows in chosen.views[place].values() for row in rows}
    assert {chosen.answers()["guesses"][place * 60 + row] for row in missing} == {-1}


def test_the_probability_outside_the_labels_stands_where_a_run_recorded_it(tmp_path):
    for name in ("recorded", "earlier"):
        write_run(tmp_path / "lmsys" / name, np.full((8, 3), 1 / 3), np.arange(8) % 3)
    for path in (tmp_path / "lmsys" / "recorded").glob("fold*/rows.csv"):
        rows = pd.read_csv(path, dtype={"id": str})
        rows.assign(outside=[0.25, None]).to_csv(path, index=False)
    (chapter,) = chapters_of(read_all(tmp_path / "lmsys").runs, ())
    found = dict(
        zip([run.name for run in chapter.runs], ChosenRows.of(chapter.runs).outside(chapter.runs), strict=True)
    )
    assert found["earlier"] is None
    assert sorted(found["recorded"], key=str) == [0.25] * 4 + [None] * 4


def test_of_many_rows_only_those_of_the_views_are_kept(tmp_path):
    labels = np.random.default_rng(0).integers(3, size=MAX_ROWS + 400)
    probs = np.random.default_rng(1).dirichlet(np.ones(3), size=len(labels))
    run = write_run(tmp_path / "lmsys" / "one", probs, labels)
    chapter = chapters_of(read_all(run).runs, ())[0]
    chosen = ChosenRows.of(chapter.runs)
    assert len(chosen.table.ids) <= 4 * MAX_LISTED
    worst = chapter.runs[0].oof.nlargest(1, "loss")["id"].item()
    assert chosen.table.ids[chosen.views[0]["worst"][0]] == worst
    assert len(ChosenRows.of(chapter.runs, every_row=True).table.ids) == len(labels)


def test_of_many_classes_the_best_and_the_wanted_one_are_kept(tmp_path):
    run = write_sample_run(tmp_path / "map" / "one", "task=map", skill=0.2)
    chapter = chapters_of(read_all(run).runs, ())[0]
    answers, oof = ChosenRows.of(chapter.runs).answers(), chapter.runs[0].oof
    top = np.reshape(answers["top"], (len(oof), answers["slots"]))
    probs = oof[chapter.classes].to_numpy()
    assert (top[:, 0] == probs.argmax(axis=1)).all()
    assert (top == oof["label"].to_numpy()[:, None]).any(axis=1).all()
    np.testing.assert_allclose(
        np.reshape(answers["probs"], top.shape) / 10000, np.take_along_axis(probs, top, axis=1), atol=5.1e-5
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("a\x1b[2Jb\r\nc", "a⟨U+001B⟩[2Jb\nc"),
        ("a\u200bb", "a⟨U+200B⟩b"),
        ("x" * (MAX_CHARACTERS + 12_345), "x" * MAX_CHARACTERS + " … cut, 12,345 characters more"),
        ("x" * MAX_CHARACTERS, "x" * MAX_CHARACTERS),
    ],
)
def test_hidden_characters_are_visible_and_long_texts_cut(text, shown):
    assert shown_text(text) == shown


def test_texts_stop_at_the_budget_and_listed_rows_come_first():
    task = build(composed("task=lmsys")).task
    examples = [Example(str(row), {"prompt": ("é" * 1_000,)}) for row in range(BUDGET // 1_000)]
    order = [*range(100, len(examples)), *range(100)]
    texts = RowTexts.of(examples, order, task, every=False)
    size = sum(len(turn.encode()) for row in texts.rows if row for turns in row for turn in turns)
    assert 0.9 * BUDGET < size <= BUDGET
    assert texts.rows[100] is not None
    assert texts.rows[0] is None
    assert None not in RowTexts.of(examples, order, task, every=True).rows


NASTY = (
    '</script><script>alert(1)</script><img src=x onerror=alert(2)> javascript:alert(3) \u202e "quoted" '
    + "y" * 200_000
)


def write_nasty(folder):
    """A run of a small table whose texts are markup, and its data."""
    folder.mkdir()
    table = pd.DataFrame({"row_id": [f"{n}</script>" for n in range(60)], "text": NASTY, "label": ["yes", "no"] * 30})
    table.to_csv(folder / "train.csv", index=False)
    table.drop(columns="label").to_csv(folder / "test.csv", index=False)
    keys = ["task.fields=[text]", "task.label=label", "task.classes=[yes,no]", "task.group_by=row_id"]
    return ["task=table", f"input_dir={folder}", *keys]


def test_markup_in_texts_and_ids_is_data(tmp_path):
    write_sample_run(tmp_path / "table" / "one", *write_nasty(tmp_path / "data"), num_folds=2)
    page = write_page(tmp_path / "table", tmp_path / "page.html", tmp_path / "none").path.read_text(encoding="utf-8")
    assert len(page) < 1e6
    assert "<script>alert" not in page
    assert "<img" not in page
    text = read_data(page)["texts"][0][0][0]
    assert text.startswith("</script><script>alert(1)</script><img")
    assert "\u202e" not in page
    assert "characters more" in text


OPEN = {"dialogue": ("head=text", "prompt=dialogue"), "instruct": ("head=text", "prompt=instruct")}


@pytest.mark.parametrize(
    ("task", "kinds"),
    [
        ("lmsys", {"prompt": "text", "response_a": "side", "response_b": "side"}),
        ("wsdm", {"prompt": "text", "response_a": "side", "response_b": "side"}),
        ("quiz", {"question": "text", "options": "options"}),
        ("marks", {"instruction": "text", "response": "text", "reference": "text"}),
        ("jigsaw_rules", {"rule": "text", "body": "text"}),
        ("dialogue", {"dialogue": "dialogue"}),
        ("eedi", {"QuestionText": "text"}),
        ("map", {"StudentExplanation": "text"}),
        ("instruct", {"instruction": "text"}),
    ],
)
def test_every_task_has_a_way_to_show_its_fields(task, kinds):
    built = build(composed(f"task={task}", *OPEN.get(task, ()))).task
    examples = built.read("train")[:20]
    fields = RowTexts.of(examples, range(20), built, every=False).fields
    assert kinds.items() <= {field["name"]: field["kind"] for field in fields}.items()
