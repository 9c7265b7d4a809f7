"""GGUF files as models: each is dequantised once into the user's cache, as a folder of safetensors and a tokenizer."""

import struct
from functools import cache
from pathlib import Path
from typing import Any

from nexttoken.data.files import cache_dir, hash_file, read_json, write_json
from nexttoken.data.whole_files import put_in_place, scratch_folder
from nexttoken.errors import UserError, first_five, one_line
from nexttoken.settings import MAX_LAYERS

SUFFIX = ".gguf"
FIX = "download it again, or name a folder of safetensors or a hub name"


def dequantised_folder(path: Path) -> Path:
    """The folder of a GGUF file's weights, with its tokenizer: quantised ones in float32, which loses nothing.

    It is made at the first call, and found by the file's content afterwards.
    Raises UserError for a file that is no GGUF, was cut, or has an architecture that transformers cannot read.
    """
    stat = path.stat()
    folder = cache_dir() / "weights" / f"{path.stem}-{_hash(path, stat.st_size, stat.st_mtime_ns)[:16]}"
    if not folder.is_dir():
        dtype = exact_dtype(path)
        print(f"{path}: written in {dtype} to {folder}, once", flush=True)
        with scratch_folder(folder) as part:
            dequantise(path, part, dtype)
            put_once(part, folder)
    return folder


@cache
def _hash(path: Path, size: int, modified: int) -> str:
    """The hash of a file's content, read once while its size and time stay the same."""
    return hash_file(path)


def put_once(part: Path, folder: Path) -> None:
    """Rename a finished folder, unless another process was faster."""
    try:
        put_in_place(part, folder)
    except OSError:
        if not folder.is_dir():
            raise


def exact_dtype(path: Path) -> str:
    """The dtype that holds a GGUF file's weights without loss: the file's own, or float32 for quantised ones.

    Only the header is read. Raises UserError for a file that is no GGUF, was cut, or describes too many layers.
    """
    from transformers.integrations.gguf.reader import GgufHeader, read_gguf_metadata

    try:
        metadata, _ = read_gguf_metadata(str(path))
        counts = {key: value for key, value in metadata.items() if key.endswith(("block_count", "expert_count"))}
        if many := {key: value for key, value in counts.items() if isinstance(value, int) and value > MAX_LAYERS}:
            raise UserError(f"{path} says {first_five(many.items())}, expected at most {MAX_LAYERS}; {FIX}")
        header = GgufHeader.from_file(str(path))
    except (ValueError, struct.error, IndexError, KeyError, OverflowError, MemoryError) as error:
        if "ggml type" in str(error):  # this reader of headers knows fewer types than the one of weights
            return "float32"
        raise UserError(f"{path} is no GGUF file, or was cut ({one_line(error)}); {FIX}") from None
    end = header.data_start + max((tensor.offset + tensor.nbytes for tensor in header.tensors), default=0)
    if end > (size := path.stat().st_size):
        raise UserError(f"{path} has {size:,} bytes, and its header describes {end:,}: it was cut; {FIX}")
    return str(header.dtype or "float32").removeprefix("torch.")


def dequantise(path: Path, folder: Path, dtype: str) -> None:
    """Write a GGUF file's weights in `dtype`, and its tokenizer with the chat template, to `folder`.

    Raises UserError for an architecture that transformers cannot read, and for a file without all of its weights.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.set_verbosity_error()
    source: dict[str, Any] = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    options: dict[str, Any] = {
        "dtype": dtype,
        "quantization_config": GgufConfig(dequantize=True),
        "output_loading_info": True,
    }
    try:
        tokenizer = AutoTokenizer.from_pretrained(**source)
        loaded: Any = AutoModelForCausalLM.from_pretrained(**source, **options)
    except Exception as error:  # one type for each kind of fault
        raise UserError(f"transformers cannot read {path} ({one_line(error)}); {FIX}") from None
    model, loading = loaded
    if missing := sorted(loading["missing_keys"]):
        raise UserError(f"{path} lacks {len(missing)} weights ({first_five(missing)}); {FIX}")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _drop_tokens(folder / "tokenizer.json", model.get_input_embeddings().num_embeddings)


def _drop_tokens(path: Path, size: int) -> None:
    """Remove tokens past the model's vocabulary: transformers adds GPT-2's <|endoftext|> to any byte-level one."""
    described = read_json(path)
    known = [token for token in described["added_tokens"] if token["id"] < size]
    if known != described["added_tokens"]:
        write_json(described | {"added_tokens": known}, path)
