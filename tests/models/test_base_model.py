"""A base model is known by its weights, however they are spread; a broken folder of one is refused in one line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from nexttoken.data.checked_settings import validated
from nexttoken.errors import UserError
from nexttoken.models.base_model import fingerprint, weight_files
from nexttoken.models.hub import refuse_giant
from nexttoken.settings import ScratchSettings

INDEX = "model.safetensors.index.json"
TENSORS = {name: np.arange(200, dtype=np.float32).reshape(20, 10) + n for n, name in enumerate("abcd")}


def save_whole(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(TENSORS, folder / "model.safetensors")
    return folder


def save_shards(folder: Path) -> Path:
    folder.mkdir()
    for name, tensor in TENSORS.items():
        save_file({name: tensor}, folder / f"{name}.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": {name: f"{name}.safetensors" for name in TENSORS}}))
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        fingerprint(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_copy_in_shards_has_the_same_fingerprint_and_the_file_that_is_loaded_counts(tmp_path: Path) -> None:
    whole, shards = save_whole(tmp_path / "whole"), save_shards(tmp_path / "shards")
    assert fingerprint(whole) == fingerprint(shards)
    save_file({name: tensor + 1 for name, tensor in TENSORS.items()}, shards / "model.safetensors")
    assert fingerprint(shards) != fingerprint(whole)
    assert weight_files(shards) == [shards / "model.safetensors"]


@given(st.sampled_from(sorted(TENSORS)), st.integers(0, 63))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
def test_any_tensor_s_first_numbers_change_the_fingerprint(tmp_path: Path, name: str, place: int) -> None:
    changed = {key: tensor.copy() for key, tensor in TENSORS.items()}
    changed[name].reshape(-1)[place] += 1
    before = fingerprint(save_whole(tmp_path / "whole"))
    save_file(changed, tmp_path / "whole" / "model.safetensors")
    assert fingerprint(tmp_path / "whole") != before


@given(st.integers(0, 3600))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_a_file_cut_anywhere_is_one_line_that_names_it(tmp_path: Path, length: int) -> None:
    path = save_whole(tmp_path / "whole") / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: min(length, len(data) - 1)])
    assert refusal(path.parent).startswith(f"{path} ")


@pytest.mark.parametrize(
    "data",
    [b"", b"x", b"\xff" * 16, b"\xff" * 400, b"\x02" + b"\0" * 7 + b"[]", b"\x02" + b"\0" * 7 + b"{}rest"],
    ids=["empty", "a byte", "a giant header", "no header", "a list", "more than it describes"],
)
def test_a_damaged_file_is_one_line_that_names_it(tmp_path: Path, data: bytes) -> None:
    path = save_whole(tmp_path / "whole") / "model.safetensors"
    path.write_bytes(data)
    assert refusal(path.parent).startswith(f"{path} ")


def test_a_tensor_outside_of_the_file_is_one_line(tmp_path: Path) -> None:
    path = save_whole(tmp_path / "whole") / "model.safetensors"
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":%s}}'
    for offsets in (b'["a",1]', b"[0]", b"3", b"[-9,4]", b"[0,1e400]", b"[4,0]", b"[0,5]"):
        text = header % offsets
        path.write_bytes(len(text).to_bytes(8, "little") + text + b"\0\0\0\0")
        assert refusal(path.parent).startswith(f"{path} ")


@pytest.mark.parametrize(
    "index",
    [
        {},
        {"weight_map": {}},
        {"weight_map": []},
        {"weight_map": {"a": "missing.safetensors"}},
        {"weight_map": {"a": "../whole/model.safetensors"}},
        {"weight_map": {"a": "/etc/passwd"}},
        {"weight_map": {"a": 3}},
    ],
    ids=str,
)
def test_an_index_that_names_no_files_of_its_folder_is_one_line(tmp_path: Path, index: dict) -> None:
    save_whole(tmp_path / "whole")
    folder = save_shards(tmp_path / "shards")
    (folder / INDEX).write_text(json.dumps(index))
    assert refusal(folder).startswith(f"{folder / INDEX} ")


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = save_shards(tmp_path / "shards")
    (folder / "b.safetensors").unlink()
    shutil.rmtree(tmp_path / "whole", ignore_errors=True)
    assert "names b.safetensors, no file of its folder" in refusal(folder)


@pytest.mark.parametrize(
    "config",
    [
        {"num_hidden_layers": 10**6},
        {"n_layer": 10**12},
        {"text_config": {"num_hidden_layers": 10**6}},
        {"num_experts": 10**6},
        {"num_hidden_layers": float("inf")},
    ],
    ids=str,
)
def test_a_model_of_a_million_layers_is_refused_before_it_is_built(tmp_path: Path, config: dict) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=rf"^{tmp_path / 'config.json'} says \w+=.*, expected at most 1000") as error:
        refuse_giant(tmp_path)
    assert "\n" not in str(error.value)


def test_usual_models_are_not_refused(tmp_path: Path) -> None:
    refuse_giant(tmp_path)
    config = {"num_hidden_layers": 126, "layer_norm_eps": 1e-5, "num_experts": 512, "vocab_size": 256_000, "x": None}
    (tmp_path / "config.json").write_text(json.dumps(config | {"layer_types": ["full"] * 126}))
    refuse_giant(tmp_path)
    (tmp_path / "config.json").write_text('{"x": "' + "y" * 30_000_000 + '"}')
    with pytest.raises(UserError, match=r"has 30,000,009 bytes, expected at most"):
        refuse_giant(tmp_path)


@pytest.mark.parametrize(
    "values",
    [{"num_layers": 10**6}, {"vocab_size": 10**9}, {"hidden_size": 2**20}, {"num_layers": 900, "hidden_size": 2**16}],
    ids=str,
)
def test_a_scratch_model_of_billions_of_weights_is_refused(values: dict) -> None:
    with pytest.raises(UserError, match=r"weights in [\d,]+ layers; at most 2,000,000,000 weights in 1,000 layers"):
        validated(ScratchSettings, values)
    validated(ScratchSettings, {"num_layers": 32, "hidden_size": 2048})
