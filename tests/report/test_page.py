"""The page of finished runs: what it shows, and what it does with folders that cannot be read."""

import re
from base64 import b64decode

import numpy as np
import pytest

from nexttoken.commands.page import main
from nexttoken.errors import UserError
from nexttoken.inference.gate import Gate
from nexttoken.report.page.page_file import write_page
from nexttoken.runs.records import save_gate
from support.finished_runs import damage, write_run


@pytest.fixture
def runs(tmp_path):
    labels = np.random.default_rng(0).integers(3, size=120)
    for name, weight in (("good", 0.6), ("poor", 0.1)):
        probs = weight * np.eye(3)[labels] + (1 - weight) / 3
        write_run(tmp_path / "lmsys" / name, probs, labels, name=name)
    return tmp_path / "lmsys"


def page_of(folder):
    out = folder / "page.html"
    written = write_page(folder, out, folder / "ledger.csv")
    return out.read_text(encoding="utf-8"), written


def test_runs_stand_with_their_scores_best_first(runs):
    page, written = page_of(runs)
    assert written.size == len(page.encode())
    values = [float(value) for value in re.findall(r'<th scope="row">\w+</th>\n<td data-value="([^"]+)"', page)]
    assert values == pytest.approx([-np.log(0.6 + 0.4 / 3), -np.log(0.1 + 0.9 / 3)])


def test_a_damaged_fold_is_listed_and_the_others_are_shown(runs):
    damage(runs / "poor" / "fold1" / "oof.csv", "id,fold\n")
    (runs / "good" / "fold2" / "metrics.json").unlink()
    page, written = page_of(runs)
    assert [one.folder.name for one in written.unread] == ["fold2", "fold1"]
    assert "not finished" in page
    assert "<td data-value" in page


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        page_of(tmp_path)


def test_names_of_runs_are_escaped(runs):
    (runs / "good").rename(runs / "<script>alert(1)<")
    page, _ = page_of(runs)
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;" in page


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("good/fold0/curve.csv", "step,train_loss,dev_log_loss\n0,inf,\n"),
        ("good/fold0/curve.csv", "step,train_loss,dev_log_loss\n-5,1.0,\n5,1.0,inf\n"),
        ("good/cascade.json", '{"points": null}'),
        ("good/folds.csv", "\xff\xfe"),
    ],
)
def test_a_damaged_file_of_one_run_leaves_the_other_on_the_page(runs, file, content):
    damage(runs / file, content)
    page, _ = page_of(runs)
    assert "The best run is" in page
    assert '<th scope="row">poor</th>' in page


def test_a_run_with_a_fold_of_other_classes_is_listed(runs):
    path = runs / "poor" / "fold1" / "oof.csv"
    damage(path, path.read_text().replace("winner_tie", "other"))
    _, written = page_of(runs)
    assert ["other columns" in one.reason for one in written.unread] == [True]


def test_runs_of_other_classes_have_a_chapter_of_their_own(runs):
    for path in (runs / "poor").glob("fold*/oof.csv"):
        damage(path, path.read_text().replace("winner_tie", "other"))
    page, _ = page_of(runs)
    assert 'id="c2"' in page


def test_a_page_is_not_written_over_a_file_of_a_run(runs):
    kept = (runs / "good" / "fold0" / "metrics.json").read_bytes()
    with pytest.raises(UserError, match=r"expected a file whose name ends in \.html"):
        main([str(runs), f"out={runs / 'good' / 'fold0' / 'metrics.json'}"])
    assert (runs / "good" / "fold0" / "metrics.json").read_bytes() == kept


def test_a_gate_s_curve_is_shown_where_a_run_has_one(runs):
    page, _ = page_of(runs)
    assert "c1-gate" not in page
    save_gate(Gate(min_top1=0.625, min_margin=0.0), {}, runs / "good" / "gate.json")
    (runs / "good" / "gate.png").write_bytes(b"\x89PNG picture")
    page, _ = page_of(runs)
    picture = re.search(r'<img class="picture" src="data:image/png;base64,([^"]+)" alt="Score of good', page)
    assert b64decode(picture[1]) == b"\x89PNG picture"
    assert "Asked again below a probability of 0.625" in page
