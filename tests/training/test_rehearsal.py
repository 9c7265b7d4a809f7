"""The rehearsal of learning rates: its rows, its choice, the same first weights, and the resumed run."""

import json
from types import SimpleNamespace

import pytest
import torch

from nexttoken.errors import UserError
from nexttoken.training.phases import RehearsalRows, Training, find_rate
from support.training import train

FIND = ("fold=0", "logger=none", "fit.find_learning_rate=true", "fit.batch_size=2", "limit_rows=40")


def rows(names):
    return [SimpleNamespace(id=str(name)) for name in names]


def test_a_rehearsal_learns_5_percent_of_the_ids_and_is_scored_on_others():
    train_rows, dev = rows([*range(1000), *range(1000)]), rows(range(2000, 2300))
    chosen = RehearsalRows.of(train_rows, dev, 4, seed=0)
    assert len({row.id for row in chosen.learnt}) == 50
    assert len(chosen.learnt) == 100  # both orders of a pair
    assert [row.id for row in chosen.scored] == [str(name) for name in range(2000, 2256)]
    small = RehearsalRows.of(rows(range(100)), [], 4, seed=0)
    assert (len(small.learnt), len(small.scored)) == (32, 32)  # eight steps
    assert not {row.id for row in small.learnt} & {row.id for row in small.scored}
    few = RehearsalRows.of(rows(range(5)), [], 4, seed=0)
    assert (len(few.learnt), len(few.scored)) == (2, 2)


def test_the_rate_with_the_lowest_loss_is_used_and_read_again(tmp_path, capsys):
    path = tmp_path / "learning_rate.json"
    losses = {2.5e-5: 1.1, 5e-5: 0.9, 1e-4: 1.0, 2e-4: None, 4e-4: None}
    assert find_rate(1e-4, path, losses.__getitem__) == (5e-5, {f"{rate:.3g}": loss for rate, loss in losses.items()})
    said = capsys.readouterr().out
    assert "5e-05          0.9000  <- used" in said
    assert "0.0002         not finite" in said
    assert "the last one tried" not in said

    def fails(_: float) -> float:
        raise AssertionError("rehearsed again")

    assert find_rate(1e-4, path, fails)[0] == 5e-5
    assert find_rate(1e-4, tmp_path / "edge.json", lambda rate: rate)[0] == 2.5e-5
    assert "tries others around it" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"no learning rate of .* has a finite loss; give a lower"):
        find_rate(1.0, tmp_path / "none.json", lambda _: None)


def test_a_training_begins_with_the_first_weights_at_the_rate_that_was_found(tmp_path, monkeypatch, capsys):
    seen = {}
    choose = Training.choose

    def recorded(self, *args, **kwargs):
        seen[len(seen)] = {name: weight.clone() for name, weight in self.model.state_dict().items()}
        return choose(self, *args, **kwargs)

    monkeypatch.setattr(Training, "choose", recorded)
    train(tmp_path / "found", *FIND, "fit.ema=0.9")
    saved = json.loads((tmp_path / "found/lmsys/tiny/fold0/metrics.json").read_text())
    assert f"fit.learning_rate={saved['learning_rate']:g} instead of 0.002" in capsys.readouterr().out
    assert list(saved["rehearsed_rates"]) == ["0.0005", "0.001", "0.002", "0.004", "0.008"]
    assert len(set(saved["rehearsed_rates"].values())) == 5
    best = min(saved["rehearsed_rates"], key=saved["rehearsed_rates"].get)
    assert saved["learning_rate"] == float(best)
    plain = [override for override in FIND if "find" not in override]
    train(tmp_path / "given", *plain, f"fit.learning_rate={best}", "fit.ema=0.9")
    assert all(torch.equal(seen[0][name], seen[1][name]) for name in seen[1])
    given = json.loads((tmp_path / "given/lmsys/tiny/fold0/metrics.json").read_text())
    assert saved["log_loss"] == pytest.approx(given["log_loss"], abs=1e-6)
