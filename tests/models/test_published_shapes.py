"""A plan knows the shipped models without the hub; what lies on this machine comes first."""

import json

import pytest
from transformers import LlamaConfig

from nexttoken.errors import UserError
from nexttoken.models.published_shapes import config_for_plan
from nexttoken.settings import ModelSettings
from support.composed import settings

NAME = "google/gemma-2-9b-it"


def model(name: str, **own: str) -> ModelSettings:
    return settings("model=gemma2_9b").model.model_copy(update={"name_or_path": name, **own})


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub, which is never asked."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_a_shipped_model_is_planned_by_its_published_dimensions(capsys):
    config = config_for_plan(model(NAME))
    assert (config.model_type, config.hidden_size, config.num_hidden_layers) == ("gemma2", 3584, 42)
    assert "planned by its published dimensions" in capsys.readouterr().out


def test_a_cached_configuration_comes_first(cache, capsys):
    folder = cache / "models--google--gemma-2-9b-it"
    (snapshot := folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    values = LlamaConfig(hidden_size=32, num_hidden_layers=1).to_dict()
    (snapshot / "config.json").write_text(json.dumps(values | {"model_type": "llama"}))
    config = config_for_plan(model(NAME))
    assert (config.model_type, config.hidden_size) == ("llama", 32)
    assert capsys.readouterr().out == ""


def test_a_folder_comes_first(tmp_path):
    LlamaConfig(hidden_size=64, num_hidden_layers=1).save_pretrained(tmp_path / "mine")
    assert config_for_plan(model(str(tmp_path / "mine"))).hidden_size == 64


def test_an_unknown_model_without_network_is_refused_by_name():
    with pytest.raises(UserError, match=r"'lab/unknown' could not be loaded: the hub cannot be reached"):
        config_for_plan(model("lab/unknown"))
