"""Runs on a quiz, genre by genre: exact tables, refusals in one line, pictures without boxes."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from nexttoken.data.folds import Folds, save_folds
from nexttoken.metrics import probabilities as metrics
from nexttoken.metrics.rankings import QUIZ_METRICS
from nexttoken.report.by_tag import page_by_tag, plot_accuracies, read_sections, results_table
from nexttoken.report.figures import Lettering
from nexttoken.report.published import read_published
from nexttoken.report.tables import fold_table, runs_table
from nexttoken.runs.folder import FoldFolder
from nexttoken.runs.ledger import record
from nexttoken.runs.read import read_runs
from nexttoken.runs.read_answers import environment, out_of_fold
from nexttoken.types import Example, LabelPredictions
from support.commands import status_of
from support.finished_runs import unseal
from support.tables import whole

main = partial(status_of, "report")

GENRES = ("芸能", "学問", "a|b $x_1$")
PAIRS = {"map_at_3": None, "has_published_scores": True}  # what tells a preference fold from one of a quiz
MACHINE = {"device": "cpu, 1 thread", "precision": "float32", "batch_tokens": 4096}


def write_fold(run: Path, right: list[bool], fold: int = 0, *, genres: tuple[str, ...] = GENRES, **changed) -> Path:
    """A finished fold of questions with 2, 3, 4, 2, ... options; the genres take turns; `right` says what is chosen."""
    sizes = [2 + place % 3 for place in range(len(right))]
    examples = [
        Example(
            f"f{fold}-{place}",
            {"question": (f"{fold} {place}?",), "options": tuple("abcd"[:size])},
            0,
            size,
            {"genre": genres[place % len(genres)], "file": "train.csv"},
        )
        for place, size in enumerate(sizes)
    ]
    probs = np.zeros((len(right), 4))
    for row, (size, is_right) in enumerate(zip(sizes, right, strict=True)):
        probs[row, :size] = 0.4 / (size - 1)
        probs[row, 0 if is_right else 1] = 0.6
        probs[row, :size] /= probs[row, :size].sum()
    labels = np.zeros(len(right), dtype=np.int64)
    seconds = np.full(len(right), 0.25)
    predictions = LabelPredictions(tuple(example.id for example in examples), probs, {"seconds": seconds})
    folder = FoldFolder(run / f"fold{fold}")
    folder.save_oof(predictions, labels, fold, list("0123"))
    folder.save_rows(examples, predictions)
    scores = {metric.name: metric.score(probs, labels) for metric in QUIZ_METRICS}
    references = {
        "uniform_log_loss": metrics.uniform_log_loss(sizes),
        "chance_accuracy": metrics.chance_accuracy(sizes),
        "prior_log_loss": metrics.log_loss(metrics.prior_probs(labels, 4, sizes), labels),
        "baseline_log_loss": 1.0,
    }
    data = {"fold": fold, "trained": True, "task": "jmmlu", "dataset": "jmmlu", "is_published_data": False}
    folder.save_metrics(scores | references | data | {"num_examples": len(right)} | MACHINE | changed)
    return folder.path


def result(id: str, genre: str, correct: bool | None, **changed) -> dict:
    known = {} if correct is None else {"answer": 0, "correct": correct}
    row = {"id": id, "tags": {"genre": genre}, "question": "?", "options": ["a", "b"], "prediction": 0}
    return row | {"probs": [0.5, 0.5], "seconds": 2.0} | known | changed


@pytest.fixture
def task_dir(tmp_path) -> Path:
    """Two runs on two folds of six questions: `good` answers all of the first genre rightly, `poor` half of it."""
    for fold in range(2):
        write_fold(tmp_path / "jmmlu" / "good", [True, True, False] * 2, fold)
        write_fold(tmp_path / "jmmlu" / "poor", [True, False, False] + [False] * 3, fold)
    return tmp_path / "jmmlu"


def submit(folder: Path, results: list[dict], **changed) -> Path:
    """Write the results of a prediction with both folds beside its submission; return the ledger."""
    submission = folder / "good.csv"
    (folder / "good.result.json").write_text(json.dumps(results))
    submission.write_text("id\n")
    line = {"run": folder, "folds": (0, 1), "asked": ""} | changed
    record(submission, str(line["run"]), line["folds"], asked=line["asked"])
    return folder / "ledger.csv"


def one_line(task_dir: Path, capsys, *arguments: str) -> str:
    assert main([str(task_dir), "by=genre", f"ledger={task_dir / 'good' / 'ledger.csv'}", *arguments]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


# Tables


def test_a_genre_has_the_published_table_best_first_with_chance_beside(task_dir):
    page = whole(page_by_tag("genre", *read_sections(read_runs(task_dir), "genre")))
    expected = """\
### Table for genre: 学問

| Model |                            Environment |  Score | Latency |   95 % interval | Questions | Chance |
| :---- | -------------------------------------: | -----: | ------: | --------------: | --------: | -----: |
| good  | cpu, 1 thread, float32, 4096 tokens | 1.0000 |     1.0 |  1.000 to 1.000 |         4 | 0.3333 |
| poor  | cpu, 1 thread, float32, 4096 tokens | 0.0000 |     1.0 |  0.000 to 0.000 |         4 | 0.3333 |
"""
    assert [words(line) for line in expected.splitlines() if line] == [
        words(line) for line in page[page.index("### Table for genre: 学問") :].splitlines()[:6] if line
    ]
    assert (
        page.index(r"### Table for genre: a\|b") < page.index("### Table for genre: 学問") < page.index("genre: 芸能")
    )


def words(line: str) -> list[str]:
    return [cell.strip(" -:") for cell in line.split("|")]


def test_all_genres_stand_beside_each_other_with_mean_and_pooled(task_dir):
    page = page_by_tag("genre", *read_sections(read_runs(task_dir), "genre"))
    table = [
        words(line)[1:-1] for line in page[page.index("| genre") : page.index("###")].splitlines() if "---" not in line
    ]
    assert (
        table[:-1]
        if table[-1] == []
        else table
        == [
            ["genre", "Questions", "Chance", "good", "poor"],
            ["a\\", "b $x_1$", "4", "0.2500", "0.0000", "0.0000"],
            ["学問", "4", "0.3333", "1.0000", "0.0000"],
            ["芸能", "4", "0.5000", "1.0000", "0.5000"],
            ["**mean over genre**", "", "0.3611", "0.6667", "0.1667"],
            ["**all questions**", "12", "0.3611", "0.6667", "0.1667"],
        ]
    )
    assert "## jmmlu (jmmlu), out of fold" in page
    assert "not asked the same questions" not in page


def test_scores_are_those_of_metrics_json_where_there_is_one_genre(tmp_path):
    right = list(np.random.default_rng(0).random(40) < 0.4)
    write_fold(tmp_path / "run", right, genres=("all",))
    [score] = read_sections(read_runs(tmp_path), "genre")[0][0].scores["all"]
    saved = json.loads((tmp_path / "run" / "fold0" / "metrics.json").read_text())
    assert (score.accuracy, score.chance) == pytest.approx((saved["accuracy"], saved["chance_accuracy"]))
    assert score.interval is not None
    assert score.interval.low < score.accuracy < score.interval.high
    assert 0.2 < score.interval.high - score.interval.low < 0.4  # 1.96 * 2 * sqrt(0.24 / 40) is 0.30


def test_questions_of_one_group_stay_together_in_the_interval(tmp_path):
    right = [True] * 20 + [False] * 20
    write_fold(tmp_path / "run", right, genres=("all",))
    ids = tuple(f"f0-{place}" for place in range(40))

    def width() -> float:
        interval = read_sections(read_runs(tmp_path), "genre")[0][0].scores["all"][0].interval
        return interval.high - interval.low if interval else 0.0

    alone = width()
    save_folds(Folds(ids, np.arange(40) // 10, np.zeros(40, dtype=np.int64)), tmp_path / "run" / "folds.csv")
    assert width() > 2 * alone


def test_any_tag_will_do(task_dir):
    page = page_by_tag("file", *read_sections(read_runs(task_dir), "file"))
    assert "### Table for file: train.csv" in page


def test_test_rows_are_a_section_of_their_own(task_dir):
    rows = [result("1", "学問", True), result("2", "学問", False), result("3", "芸能", None), result("4", "芸能", True)]
    page = page_by_tag("genre", *read_sections(read_runs(task_dir), "genre", submit(task_dir / "good", rows)))
    tested = page[page.index("## jmmlu (jmmlu), test rows") :]
    lines = [words(line)[1:-1] for line in tested.splitlines() if line.startswith("| good")]
    assert lines == [
        ["good", "–", "0.5000", "4.0", "0.000 to 1.000", "2", "0.5000"],
        ["good", "–", "1.0000", "2.0", "–", "1", "0.5000"],
    ]


def test_test_rows_without_known_answers_are_no_section(task_dir):
    ledger = submit(task_dir / "good", [result("1", "学問", None)])
    assert "test rows" not in page_by_tag("genre", *read_sections(read_runs(task_dir), "genre", ledger))


@pytest.mark.parametrize("changed", [{"asked": "gate"}, {"folds": (0,)}, {"run": Path("output/jmmlu/other")}])
def test_test_rows_of_another_way_of_asking_other_folds_or_another_run_are_no_section(task_dir, changed):
    ledger = submit(task_dir / "good", [result("1", "学問", True)], **changed)
    assert "test rows" not in page_by_tag("genre", *read_sections(read_runs(task_dir), "genre", ledger))


def test_results_are_counted_by_genre_after_prediction():
    rows = [result("1", "学問", True), result("2", "学問", False), result("3", "芸能", True), result("4", "", None)]
    text = results_table(rows)
    assert text.startswith("3 test questions of 4, whose answers are known: accuracy 0.6667, chance 0.5000\n")
    lines = [words(line)[1:-1] for line in text.splitlines()]
    assert ["学問", "2", "0.5000", "0.5000"] in lines
    assert ["芸能", "1", "0.5000", "1.0000"] in lines
    assert results_table([row | {"tags": {}} for row in rows[:2]]) == "2 test questions: accuracy 0.5000, chance 0.5000"
    assert "not known" in results_table(rows[3:])


def test_one_question_has_no_interval(tmp_path):
    write_fold(tmp_path / "run", [True, False, True, True], genres=("x", "x", "x", "alone"))
    [score] = read_sections(read_runs(tmp_path), "genre")[0][0].scores["alone"]
    assert score.cells()[2:] == ["1.0000", "0.2", "–", "1", "0.5000"]


def test_runs_on_other_rows_are_said_to_differ_and_a_missing_genre_stays_open(tmp_path):
    write_fold(tmp_path / "first", [True] * 6)
    write_fold(tmp_path / "second", [True] * 6, genres=GENRES[:1])
    write_fold(tmp_path / "second", [True] * 6, fold=1, genres=GENRES[:1])
    page = page_by_tag("genre", *read_sections(read_runs(tmp_path), "genre"))
    assert "not asked the same questions" in page
    row = next(words(line)[1:-1] for line in page.splitlines() if line.startswith("| 学問"))
    assert row[-2:] == ["1.0000", "–"]


def test_each_data_set_has_its_own_section(tmp_path):
    write_fold(tmp_path / "first", [True] * 6)
    write_fold(tmp_path / "second", [False] * 6, dataset="other")
    titles = [section.title for section in read_sections(read_runs(tmp_path), "genre")[0]]
    assert titles == ["jmmlu (jmmlu), out of fold", "other (jmmlu), out of fold"]


def test_a_tag_called_like_a_column_of_the_report_hides_nothing(tmp_path):
    write_fold(tmp_path / "run", [True, False, False, True])
    path = tmp_path / "run" / "fold0" / "rows.csv"
    header, *lines = [line.partition(",") for line in path.read_text(encoding="utf-8").splitlines()]
    written = [f"{header[0]},correct,{header[2]}", *(f"{first},x,{rest}" for first, _, rest in lines)]
    path.write_text("\n".join(written) + "\n", encoding="utf-8")
    unseal(path.parent)
    (run,) = read_runs(tmp_path)
    assert out_of_fold(run).rows["correct"].tolist() == [True, False, False, True]


def test_a_row_without_its_tag_is_counted(tmp_path):
    write_fold(tmp_path / "run", [True] * 4, genres=("x", ""))
    assert [list(s.options) for s in read_sections(read_runs(tmp_path), "genre")[0]] == [["(none)", "x"]]


def test_the_environment_is_a_dash_for_runs_of_before(tmp_path):
    path = write_fold(tmp_path / "run", [True] * 3)
    write_fold(tmp_path / "run", [True] * 3, fold=1, precision="bfloat16")
    [run] = read_runs(tmp_path)
    both = [f"cpu, 1 thread, {precision}, 4096 tokens" for precision in ("float32", "bfloat16")]
    assert environment(run.folds) == " / ".join(both)
    unseal(path)
    saved = json.loads((path / "metrics.json").read_text())
    (path / "metrics.json").write_text(json.dumps({key: value for key, value in saved.items() if key not in MACHINE}))
    [run] = read_runs(tmp_path)
    assert environment(run.folds[:1]) == "-"
    assert environment(run.folds) == both[1]


# The other tables of a quiz


def test_the_run_table_of_a_quiz_has_its_own_scores_and_nothing_of_the_leaderboard(task_dir):
    table = whole(runs_table(read_runs(task_dir)))
    header, good, poor = (
        words(line)[1:-1] for line in table.splitlines() if line.startswith("|") and "---" not in line
    )
    row = dict(zip(header, good, strict=True))
    assert list(row)[:9] == ["Model", "Environment", "accuracy", "chance accuracy", "MAP@3", "log loss",
                             "uniform guess", "class prior", "option baseline"]  # fmt: skip
    assert (row["accuracy"], row["chance accuracy"], row["MAP@3"]) == ("0.6667", "0.3611", "0.8333")
    assert row["uniform guess"] == f"{np.log([2, 3, 4]).mean():.4f}"
    assert poor[0] == "poor"
    assert "Published" not in table
    assert "LMSYS" not in table


def test_a_preference_run_beside_it_keeps_its_published_scores(task_dir):
    write_fold(task_dir / "pairs", [True] * 6, task="lmsys", dataset="sample", **PAIRS)
    table = runs_table(read_runs(task_dir))
    assert "none is comparable with sample." in table
    assert table.count("## ") == 3


def test_what_a_quiz_is_does_not_hang_on_its_name_or_its_size(task_dir):
    """Not even where an earlier version took many rows for the competition's own."""
    write_fold(task_dir / "named", [True] * 6, task="lmsys", dataset="mine", is_published_data=True)
    table = runs_table(read_runs(task_dir))
    assert "MAP@3" in table[table.index("## mine") :]
    assert "predicted public LB" not in table
    assert "Published" not in table


def test_the_fold_table_has_the_ranking_of_chance_and_baseline_where_they_are_known(tmp_path):
    path = write_fold(tmp_path, [True, False, False] * 4, chance_map_at_3=0.65, baseline_map_at_3=0.7)
    table = fold_table(json.loads((path / "metrics.json").read_text()), QUIZ_METRICS)
    lines = [words(line)[1:-1] for line in table.splitlines() if line.startswith("|")]
    assert lines[2][3] == "0.6500"
    assert lines[4][3] == "0.7000"


def test_the_fold_table_of_a_quiz_is_short(tmp_path):
    path = write_fold(tmp_path, [True, False, False] * 4)
    table = fold_table(json.loads((path / "metrics.json").read_text()), QUIZ_METRICS)
    lines = [words(line)[1:-1] for line in table.splitlines() if line.startswith("|")]
    assert len(lines) == 6
    assert lines[2] == ["uniform guess", f"{np.log([2, 3, 4]).mean():.4f}", "0.3611", "", "+0.3190"]
    assert lines[4] == ["option baseline", "1.0000", "", "", lines[4][-1]]
    assert [lines[5][0], *lines[5][2:]] == ["**this fold (trained)**", "**0.3333**", "**0.6667**", ""]
    assert table.startswith("jmmlu, fold 0: 12 questions\n")


# Refusals


def test_an_unknown_tag_is_refused_with_the_nearest(task_dir, capsys):
    assert main([str(task_dir), "by=genres"]) == 2
    assert capsys.readouterr().err == "no run has the tag 'genres' in its rows.csv; did you mean 'genre'?\n"
    assert not list(task_dir.glob("*.md"))


@pytest.mark.parametrize("wrong", ["seconds", "num_options", "correct", "id"])
def test_what_was_measured_is_no_tag(task_dir, wrong, capsys):
    assert main([str(task_dir), f"by={wrong}"]) == 2
    assert f"no run has the tag {wrong!r}" in capsys.readouterr().err


def test_runs_of_before_are_left_out_by_name(task_dir, capsys):
    (task_dir / "poor" / "fold1" / "rows.csv").unlink()
    for path in task_dir.glob("*/fold*"):
        unseal(path)
    page = page_by_tag("genre", *read_sections(read_runs(task_dir), "genre"))
    assert "Without rows.csv, trained by an earlier version and left out: poor." in page
    assert "| poor" not in page
    for path in task_dir.rglob("rows.csv"):
        path.unlink()
    assert one_line(task_dir, capsys).startswith("no rows.csv in good, poor: trained by an earlier version;")


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        ("fold0/rows.csv", "f0-3,", "f0-9,", "has other ids than oof.csv beside it"),
        ("fold0/rows.csv", ",0.25", ",soon", "could not convert string to float: 'soon'"),
        ("fold0/rows.csv", "num_options", "options", "num_options"),
        ("good.result.json", "[", "{", "cannot be read as JSON"),
        ("good.result.json", '"options"', '"choices"', "has a row that cannot be used (KeyError('options'))"),
        ("good.result.json", "[{", '{"rows": [{', "cannot be read as JSON"),
    ],
)
def test_broken_files_are_one_line(task_dir, file, old, new, reason, capsys):
    submit(task_dir / "good", [result("1", "学問", True)])
    path = task_dir / "good" / file
    unseal(task_dir / "good" / "fold0")
    path.write_text(path.read_text().replace(old, new, 1))
    message = one_line(task_dir, capsys)
    assert reason in message
    assert path.name in message


# The page and the picture


def test_the_command_writes_page_and_picture_without_torch(task_dir, tmp_path):
    code = (
        "import sys; from nexttoken.commands.report import main; main(sys.argv[1:]); "
        "assert not {'torch', 'transformers', 'hydra'} & set(sys.modules)"
    )
    command = [
        sys.executable,
        "-W",
        "error",
        "-c",
        code,
        str(task_dir),
        "by=genre",
        f"out={tmp_path / 'out'}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")  # no warning of a missing glyph either
    page = (tmp_path / "out" / "genres.md").read_text()
    assert "![Accuracy by genre](<pictures/genres.png>)" in page
    assert imread(tmp_path / "out" / "pictures" / "genres.png").shape[0] > 300
    assert (
        done.stdout
        == f"{page}\nwrote {tmp_path / 'out' / 'genres.md'}\nwrote {tmp_path / 'out' / 'pictures' / 'genres.png'}\n"
    )
    assert "Published" not in page


def test_published_tables_are_shown_only_when_asked_for(task_dir, capsys):
    assert main([str(task_dir), "by=genre", "published=true"]) == 0
    published = capsys.readouterr().out.split("## Published scores of another quiz")[1]
    assert "None is comparable" in published
    assert published.count("| swallow-13b ") == published.count("### Published table for genre: ") == 5
    rows = [words(line)[1:5] for line in published.splitlines() if line.startswith("|") and "dev" in line]
    assert len(rows) == 5 * len(read_published("quiz")["models"])
    for genre in range(5):
        scores = [float(row[2]) for row in rows if row[1] == f"dev{5 + genre}"]
        assert scores == sorted(scores, reverse=True)


def test_names_that_no_font_can_write_get_numbers_and_a_key(monkeypatch):
    monkeypatch.setattr("nexttoken.report.figures._installed_fonts", list)
    lettering = Lettering.for_names(["芸能", "plain", "学問"])
    assert [lettering.show(name) for name in ("芸能", "plain", "学問", "$x$")] == ["[1]", "plain", "[2]", r"\$x\$"]
    assert lettering.key == ["[1] 芸能", "[2] 学問"]


def test_a_font_that_can_write_the_names_is_used():
    names = ["Ⅳ ελληνικά", "\U0001d7d8"]  # DejaVu Sans writes these: the default, wherever matplotlib is
    assert Lettering.for_names(names) == Lettering(("DejaVu Sans",), {})
    lettering = Lettering.for_names(["\ufffe芸能"])  # a code point that is no letter in any font
    assert lettering.key
    assert "Last Resort" not in " ".join(lettering.fonts)


@pytest.mark.filterwarnings("error")
def test_the_picture_stands_many_runs_and_one_question(tmp_path):
    for number in range(12):
        write_fold(tmp_path / f"run {number} $", [number % 2 == 0] * (1 + number % 3))
    key = plot_accuracies(read_sections(read_runs(tmp_path), "genre")[0], tmp_path / "picture.png")
    assert imread(tmp_path / "picture.png").ndim == 3
    assert all(entry.startswith("[") for entry in key)
