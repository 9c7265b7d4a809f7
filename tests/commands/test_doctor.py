"""The doctor: one screen of findings, each with its fix where something is amiss, and status 1 where nothing runs."""

import subprocess
import sys

import pytest

from nexttoken.commands import doctor
from nexttoken.commands.diagnosis import places
from nexttoken.commands.diagnosis.choices import check_models
from nexttoken.commands.diagnosis.finding import Finding
from nexttoken.commands.diagnosis.installation import PROJECT, check_installation
from nexttoken.commands.diagnosis.places import check_folder, check_shared_memory
from nexttoken.data.machine import bf16_units, processor, usable_cores
from support.commands import refusal

TOKEN = "hf_secret0123456789"


def test_this_machine_is_shown_on_one_screen_with_what_would_be_chosen(repository, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(repository)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    doctor.main([f"output_dir={tmp_path / 'out'}"])
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 100
    assert len(lines) <= 45
    for words in (
        "all ",
        "within the ranges",
        "usable",
        "locks work",
        "a token is set",
        "9B QLoRA",
        "batch_tokens=2048",
    ):
        assert words in shown
    assert TOKEN not in shown
    assert not (tmp_path / "out").exists()


def test_a_missing_or_old_package_breaks_and_names_its_fix(tmp_path, monkeypatch, capsys):
    text = PROJECT.read_text(encoding="utf-8").replace('"psutil",', '"psutil>=999", "no-such-package",')
    (tmp_path / "pyproject.toml").write_text(text, encoding="utf-8")
    (packages,) = [one for one in check_installation(tmp_path / "pyproject.toml") if one.topic == "packages"]
    assert packages.breaks
    assert "no-such-package is not installed" in packages.text
    assert "is not >=999" in packages.text
    assert packages.fix == "pip install -e ."
    monkeypatch.setattr("nexttoken.commands.diagnosis.installation.check_installation", lambda: [packages])
    with pytest.raises(SystemExit, match="1"):
        doctor.main([f"output_dir={tmp_path}"])
    assert "gpu " not in capsys.readouterr().out  # torch is not imported


def test_a_package_that_the_commands_themselves_need_is_one_line():
    code = "import sys; sys.modules['pydantic'] = None; from nexttoken.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "doctor"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "the package pydantic is not installed; install all that are needed: pip install -e .\n"


def test_an_installed_copy_names_its_own_ranges(tmp_path):
    assert [one.topic for one in check_installation(tmp_path / "none")][:2] == ["python", "packages"]


def test_a_folder_that_takes_no_files_breaks_and_a_full_disk_is_a_note(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "output"):
        found = check_folder("output", folder)
        assert found.breaks
        assert found.text == f"{folder} is no folder: {tmp_path / 'file'} is a file"
        assert found.fix == "move that file away, or choose another folder: output_dir=..."
    assert check_folder("output", tmp_path / "new") == Finding("output", check_folder("output", tmp_path / "new").text)
    monkeypatch.setattr(places, "LEAST_DISK", 2**60)
    found = check_folder("cache", tmp_path)
    assert (found.breaks, found.fix) == (False, "make room, or choose another folder: export NEXTTOKEN_CACHE=...")


def test_little_shared_memory_is_a_note(tmp_path, monkeypatch):
    assert check_shared_memory(tmp_path / "none") == []
    monkeypatch.setattr(places, "LEAST_SHARED", 2**60)
    (found,) = check_shared_memory(tmp_path)
    assert "--shm-size=1g" in found.fix


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "50000 100000\n"}, 0.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "25000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.25),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_the_container_s_cores_count(tmp_path, files, cores):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cores(tmp_path) == (cores or usable_cores(tmp_path / "none"))


def test_the_processor_s_units_are_read(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Fast One\nflags\t\t: fpu amx_bf16 avx512_bf16\n")
    assert processor(tmp_path / "cpuinfo") == "Fast One"
    assert bf16_units(tmp_path / "cpuinfo") == ("amx_bf16", "avx512_bf16")
    assert bf16_units(tmp_path / "none") == ()


def test_models_fit_by_their_weights(repository, monkeypatch):
    monkeypatch.chdir(repository)
    (found,) = check_models(7 * 10**9)
    assert "prediction and QLoRA, 4 bit: " in found.text
    assert "the largest gemma2_9b" not in found.text.partition("QLoRA")[0]  # 18.5 GB
    assert "all weights, AdamW: " in found.text
    (none,) = check_models(10**6)
    assert "16 bit: none" in none.text


def test_mistakes_are_one_line(capsys):
    assert "network='perhaps' is not accepted" in refusal(capsys, "doctor", "network=perhaps")
