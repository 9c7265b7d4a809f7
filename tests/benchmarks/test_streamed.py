"""The benchmark of streamed layers: both sides answer alike, and what it cannot measure is refused."""

import numpy as np
import pytest

from benchmarks import streamed
from benchmarks.streamed import StreamedArguments, main, run_side, write_model
from nexttoken.errors import UserError


@pytest.mark.slow
def test_both_sides_answer_alike(tmp_path):
    write_model(tmp_path, layers=1)
    given = StreamedArguments.parse(["rows=6", "tokens=5"])
    ours, peer = (run_side(tmp_path, streams, given, None) for streams in (True, False))
    np.testing.assert_allclose(ours["probs"], peer["probs"], atol=0.02)
    assert ours["bytes_of_layers"] > 2**20 * 0.9 * streamed.LAYER_MB
    assert peer["bytes_of_layers"] == 0


def test_a_machine_without_control_groups_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(streamed, "GROUPS", (tmp_path / "none", tmp_path / "nothing"))
    monkeypatch.setattr(streamed, "write_model", lambda *_: pytest.fail("a model was written"))
    with pytest.raises(UserError, match="no control group with a memory limit"):
        main([f"out={tmp_path / 'out.json'}"])
