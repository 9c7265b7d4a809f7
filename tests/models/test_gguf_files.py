"""GGUF files as models: the same numbers and tokens as the weights they were written from, and one line for faults."""

import json
from pathlib import Path

import gguf
import numpy as np
import pandas as pd
import pytest
import torch

from nexttoken.commands.merge import main as merge
from nexttoken.commands.plan import main as plan
from nexttoken.errors import UserError
from nexttoken.models.base_model import identify
from nexttoken.models.gguf_files import exact_dtype
from nexttoken.models.hub import find_model, locate
from nexttoken.models.load import load_config, load_model, load_tokenizer
from nexttoken.pipeline import train
from nexttoken.runs.load import load_run
from nexttoken.settings import ModelSettings
from support.composed import config_of
from support.gguf_models import build, write_gguf

TEXT = "Which answer is better?\n### Answer\ntie 12 é"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NEXTTOKEN_CACHE", str(tmp_path / "cache"))


def loaded(path: Path, dtype: torch.dtype = torch.float32):
    settings = ModelSettings(name_or_path=str(path))
    tokenizer = load_tokenizer(settings, ())
    return load_model(settings, tokenizer, 64, dtype).eval(), tokenizer


def logits(model, ids: list[int]) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].float().numpy()


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_an_f32_file_gives_the_numbers_of_its_weights(architecture, chat_tokenizer, tmp_path):
    original = build(architecture, chat_tokenizer)
    model, tokenizer = loaded(write_gguf(tmp_path / "tiny.gguf", architecture, original, chat_tokenizer))
    ids = chat_tokenizer(TEXT).input_ids
    assert tokenizer(TEXT).input_ids == ids
    np.testing.assert_allclose(logits(model, ids), logits(original, ids), atol=1e-5)
    assert model.config.tie_word_embeddings == original.config.tie_word_embeddings
    messages = [{"role": "user", "content": "Hi"}]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == chat_tokenizer.apply_chat_template(
        messages, tokenize=False
    )


def test_a_quantised_file_is_dequantised_to_the_dtype_that_is_asked_for(scratch, tmp_path):
    original = build("llama", scratch.tokenizer)
    path = write_gguf(tmp_path / "tiny.gguf", "llama", original, scratch.tokenizer, "Q8_0")
    rounded = gguf.quants.quantize(original.lm_head.weight.detach().numpy(), gguf.GGMLQuantizationType.Q8_0)
    expected = gguf.quants.dequantize(rounded, gguf.GGMLQuantizationType.Q8_0)
    for dtype in (torch.float32, torch.bfloat16):
        model, _ = loaded(path, dtype)
        assert {parameter.dtype for parameter in model.parameters()} == {dtype}
        torch.testing.assert_close(model.lm_head.weight.detach(), torch.from_numpy(expected).to(dtype), atol=0, rtol=0)


def test_a_file_in_16_bit_is_copied_in_16_bit(scratch, tmp_path):
    path = write_gguf(tmp_path / "tiny.gguf", "llama", build("llama", scratch.tokenizer), scratch.tokenizer, "F16")
    assert exact_dtype(path) == "float16"
    assert load_config(ModelSettings(name_or_path=str(path))).dtype == torch.float16


def test_it_is_dequantised_once_and_found_by_its_content(scratch, tmp_path, capsys):
    path = write_gguf(tmp_path / "tiny.gguf", "llama", build("llama", scratch.tokenizer), scratch.tokenizer)
    folder = locate(str(path))
    assert "written in float32 to" in capsys.readouterr().out
    (tmp_path / "elsewhere").mkdir()
    moved = path.rename(tmp_path / "elsewhere" / path.name)
    assert locate(str(moved)) == folder
    assert capsys.readouterr().out == ""
    config = json.loads((Path(folder) / "config.json").read_text())
    assert "quantization_config" not in config
    settings = ModelSettings(name_or_path=str(moved))
    own = ModelSettings(name_or_path=folder)
    assert identify(settings, scratch.tokenizer).weights == identify(own, scratch.tokenizer).weights


@pytest.mark.slow
def test_a_run_on_it_trains_an_adapter_predicts_and_merges(scratch, tmp_path, capsys, repository):
    path = write_gguf(tmp_path / "tiny.gguf", "llama", build("llama", scratch.tokenizer), scratch.tokenizer, "Q8_0")
    small = ["limit_rows=16", "max_tokens=160", "trainer.max_epochs=1", "adapter=lora", "logger=none", "name=gguf"]
    train(config_of("train", f"model.name_or_path={path}", f"output_dir={tmp_path}", *small))
    run = tmp_path / "lmsys" / "gguf"
    oof = pd.read_csv(run / "fold0" / "oof.csv", dtype={"id": str})
    rows = pd.read_csv(repository / "input/sample-preferences/train.csv", dtype=str, keep_default_na=False)
    rows = rows.set_index("id").loc[oof["id"]].reset_index()
    again = load_run(run).predict(rows.drop(columns=[name for name in rows if name.startswith("winner")]))
    np.testing.assert_allclose(again.iloc[:, 1:], oof.iloc[:, -3:], atol=1e-5)
    merge([f"run={run}", f"out={tmp_path / 'merged'}", "rows=8"])
    shown = capsys.readouterr().out
    assert float(shown.split("largest difference of a class probability: ")[1].split()[0]) < 1e-5
    assert load_config(ModelSettings(name_or_path=str(tmp_path / "merged"))).hidden_size == 64
    plan([f"model.name_or_path={path}", "adapter=lora", "quantization=nf4"])
    assert "LoRA" in capsys.readouterr().out


def faulty(kind: str, path: Path, tokenizer) -> Path:
    """A file with one fault."""
    if kind == "architecture":
        writer = gguf.GGUFWriter(path, "clip")
        writer.add_block_count(1)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path
    write_gguf(path, "llama", build("llama", tokenizer), tokenizer)
    data = path.read_bytes()
    cut = {"data": data[:-5000], "header": data[:3000], "empty": b"", "other": b"PK\x03\x04" + data[4:], "lfs": LFS}
    path.write_bytes(cut[kind])
    return path


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
FAULTS = {
    "data": "it was cut; download it again, or name a folder of safetensors or a hub name",
    "header": "is no GGUF file, or was cut",
    "empty": "is no GGUF file, or was cut",
    "other": "does not start with the GGUF magic bytes",
    "lfs": "git lfs pull",
    "architecture": "transformers cannot read .*clip.*; download it again, or name",
}


@pytest.mark.parametrize(("kind", "words"), FAULTS.items())
def test_a_faulty_file_is_one_line_and_leaves_nothing(kind, words, scratch, tmp_path):
    path = faulty(kind, tmp_path / "tiny.gguf", scratch.tokenizer)
    with pytest.raises(UserError, match=words) as error:
        locate(str(path))
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    assert not list(tmp_path.glob("cache/weights/*"))


def test_a_file_that_is_not_there_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(
        UserError, match=r"x\.gguf' is not a file; give a folder with config.json, a GGUF file or a hub"
    ):
        train(config_of("train", f"model.name_or_path={tmp_path / 'x.gguf'}", "input_dir=/nowhere"))
    assert find_model("lab/plain") is None
