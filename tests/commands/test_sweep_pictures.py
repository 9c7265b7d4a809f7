"""The pictures of a grid, and the axes on which settings are drawn."""

from pathlib import Path

import pytest

from nexttoken.commands import sweep_pictures
from nexttoken.commands.sweep import Job
from nexttoken.commands.sweep_end import Variant
from nexttoken.report import setting_plots
from nexttoken.report.setting_plots import Axis

KEYS = ["fit.learning_rate", "adapter.r"]


def variants(folder: Path, number: int) -> list[Variant]:
    found = []
    for rate, rank in [("1e-4", "16"), ("1e-3", "16"), ("1e-4", "64"), ("1e-3", "64")][:number]:
        settings = (f"fit.learning_rate={rate}", f"adapter.r={rank}")
        run = str(folder / f"{rate}_{rank}")
        jobs = [Job("", run, fold, float(rate) + fold + int(rank) / 100, settings=settings) for fold in range(2)]
        found.append(Variant(settings, tuple(jobs)))
    return found


@pytest.mark.parametrize(("number", "names"), [(2, []), (3, ["parallel_coordinates"])])
def test_a_grid_of_three_variants_is_drawn(tmp_path, number, names):
    folder = tmp_path / "sweeps" / "learning_rate-r"
    lines = sweep_pictures.draw_grid(variants(tmp_path, number), KEYS)
    assert lines == [f"picture: {folder / name}.png" for name in names]
    assert all(Path(line.removeprefix("picture: ")).read_bytes().startswith(b"\x89PNG") for line in lines)


def test_nothing_is_drawn_where_a_variant_lacks_a_key_or_shares_no_fold(tmp_path):
    found = variants(tmp_path, 4)
    assert sweep_pictures.draw_grid(found, [*KEYS, "seed"]) == []
    other = Variant(found[0].settings, tuple(Job("", job.run, 4, 1.0) for job in found[0].jobs))
    assert sweep_pictures.draw_grid([other, *found[1:]], KEYS) == []


def test_without_optuna_a_line_says_how_to_get_the_importance(tmp_path, monkeypatch):
    monkeypatch.setattr(setting_plots, "is_installed", lambda module: False)
    drawn, told = sweep_pictures.draw_grid(variants(tmp_path, 4), KEYS)
    assert drawn.endswith("parallel_coordinates.png")
    assert told.endswith("with optuna: pip install -e '.[search]'")


def test_the_importance_is_that_of_the_setting_that_moves_the_score(tmp_path):
    pytest.importorskip("optuna")
    axes = [Axis("rate", (), 0.0001, 0.1, True), Axis("kind", ("a", "b"))]
    settings = [{"rate": rate, "kind": kind} for rate in (0.001, 0.01, 0.02, 0.05) for kind in "ab"]
    trials = [setting_plots.Trial(one, float(one["kind"] == "b") + one["rate"]) for one in settings]
    shares = setting_plots.importances(trials, axes, higher_is_better=False)
    assert [*shares] == ["kind", "rate"]
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["kind"] > 0.9


def test_an_axis_places_numbers_on_its_scale_and_choices_in_their_order():
    assert Axis("a", (), 2.0, 4.0).place(3) == 0.5
    assert Axis("a", (), 1e-4, 1e-2, True).place(1e-3) == pytest.approx(0.5)
    assert [Axis("a", ("x", "y")).place(choice) for choice in "xy"] == [0.25, 0.75]
    assert [text for _, text in Axis("a", (), 1e-4, 1, True).ticks] == ["0.0001", "0.001", "0.01", "0.1", "1"]
    assert Axis("a", (), 3.0, 3.0).place(3) == 0.5
