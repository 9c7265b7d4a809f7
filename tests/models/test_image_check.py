"""The check of a kernel's machine: versions in their ranges, and GPUs for which torch has code."""

import pytest
import torch

from nexttoken.models.image_check import main, runs_on

TODAY = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]


@pytest.mark.parametrize(
    ("capability", "runs"),
    [
        ((6, 0), False),
        ((7, 0), False),
        ((7, 5), True),
        ((8, 9), True),
        ((9, 0), True),
        ((12, 1), True),
        ((13, 0), True),
    ],
)
def test_a_gpu_is_usable_where_torch_has_code_for_it(capability, runs):
    assert runs_on(capability, TODAY) == runs


def test_an_absent_or_untried_package_ends_in_one_line(tmp_path, capsys):
    path = tmp_path / "requirements.txt"
    path.write_text("torch>=2.6\npackaging\n")
    main(path)
    said = capsys.readouterr().out
    assert f"torch {torch.__version__}" in said
    path.write_text("torch>=2.6\nno-such-package\npackaging<1\n")
    with pytest.raises(SystemExit, match=r"lacks no-such-package, packaging<1 \(it has .*\): build"):
        main(path)
