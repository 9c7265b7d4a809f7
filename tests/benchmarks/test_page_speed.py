"""The measurement of the page's seconds on a small table."""

import re

from benchmarks.page import main


def test_it_states_seconds_and_size_of_a_page_that_it_keeps(tmp_path, capsys):
    main(["rows=100", f"out={tmp_path / 'page.html'}"])
    found = re.search(r"100 rows, 3 runs of 5 folds: ([\d.]+) s, a file of ([\d.]+) MB", capsys.readouterr().out)
    assert found
    assert 0 < float(found[1]) < 60
    assert abs(float(found[2]) - (tmp_path / "page.html").stat().st_size / 1e6) < 0.01
    assert "better" in (tmp_path / "page.html").read_text(encoding="utf-8")
