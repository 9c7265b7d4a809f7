"""The licences command names what packages state of themselves, and what a user has to look at."""

import sys
from pathlib import Path

import pytest

from nexttoken.commands.licences import is_permissive, main
from nexttoken.errors import UserError

STATED = {  # by package: the lines of its METADATA, and its shown licence
    "one": ("License-Expression: MIT", "MIT"),
    "two": ("License: Apache 2.0 License", "Apache 2.0 License"),
    "three": ("License: MIT License\n        \n        Copyright", "MIT License"),
    "four": (
        "License: Dual License\nClassifier: License :: OSI Approved :: BSD License\n"
        "Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)",
        "BSD License; GNU General Public License v3 (GPLv3)",
    ),
    "five": ("License-Expression: MPL-2.0 AND MIT", "MPL-2.0 AND MIT"),
    "six": ("License: UNKNOWN", "no statement"),
    "seven": ("License-Expression: LicenseRef-NVIDIA-Proprietary", "LicenseRef-NVIDIA-Proprietary"),
    "eight": ("Classifier: Programming Language :: Python", "no statement"),
}


@pytest.fixture
def _installed(tmp_path: Path, monkeypatch) -> None:
    for name, (lines, _) in STATED.items():
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n{lines}\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])


@pytest.mark.usefixtures("_installed")
def test_every_package_is_listed_and_the_others_are_named(capsys) -> None:
    main([])
    *listed, number, others, silent = (line for line in capsys.readouterr().out.splitlines() if line)
    shown = {line.split()[0]: " ".join(line.split()[2:]) for line in listed}
    assert shown == {name: licence for name, (_, licence) in STATED.items()}
    assert number == "8 packages, 4 of them permissive"
    assert "five (MPL-2.0 AND MIT), seven (LicenseRef-NVIDIA-Proprietary)" in others
    assert silent == "without a statement: eight, six"


def test_an_argument_is_refused() -> None:
    with pytest.raises(UserError, match="unknown argument 'mit'; the command takes none, so leave it out"):
        main(["mit"])


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("Apache-2.0 WITH LLVM-exception AND BSD-3-Clause", True),
        ("GPL-2.0-only OR MIT", True),
        ("GPL-2.0-only AND MIT", False),
        ("LGPL-2.1-only", False),
        ("Mozilla Public License 2.0 (MPL 2.0)", False),
        ("CC-BY-SA-3.0", False),
        ("Somebody's own", False),
    ],
)
def test_a_licence_is_permissive_where_one_of_its_choices_is(licence: str, expected: bool) -> None:
    assert is_permissive(licence) == expected
