"""Identity of a base model: a fingerprint of its weights and tokenizer that is the same for every copy."""

import hashlib
import json
import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nexttoken.data.files import RETRAIN, hash_text, read_json, write_json
from nexttoken.errors import UserError, first_five
from nexttoken.models.hub import locate
from nexttoken.settings import ModelSettings, Settings

FILE = "base.json"
COMPLETE = "give a folder that holds the model complete"
MAX_HEADER_BYTES = 10**8  # as the safetensors library has it
SAMPLE_BYTES = 256  # read of each tensor: enough to tell fine-tuned models apart, and quick for 140 GB


@dataclass(frozen=True)
class Base:
    """A base model; `weights` and `tokenizer` are the fingerprints that identify it, `name` is for people."""

    name: str
    weights: str
    tokenizer: str
    stored: str = ""  # storage of a quantised copy saved by this project, such as "int8"; "" for the model itself
    files: str = ""  # fingerprint of that copy's own weights
    dtype: str = ""  # of these weights on the CPU on which an adapter was trained on them and scored

    def save(self, folder: Path) -> None:
        write_json(asdict(self), folder / FILE)


def read_base(folder: Path) -> Base:
    try:
        return Base(**read_json(folder / FILE))
    except TypeError:
        raise UserError(f"{folder / FILE} does not name a base model; {RETRAIN}") from None


def identify(settings: ModelSettings, tokenizer: Any) -> Base:
    """The base that `settings` name; a quantised copy saved by this project counts as the model it was made from."""
    assert settings.name_or_path is not None
    folder = weights_folder(settings)
    if (folder / FILE).exists():
        copy = read_base(folder)
        if copy.files not in ("", fingerprint(folder)):
            raise UserError(f"{folder} holds other weights than {FILE} says; quantise {copy.name} again")
        return copy
    words = json.dumps([sorted(tokenizer.get_vocab().items()), tokenizer.chat_template])
    return Base(settings.name_or_path, fingerprint(folder), hash_text(words)[:16])


def refuse_other_base(folder: Path, settings: Settings, given: Base, key: str = "base") -> None:
    """Raise UserError unless the adapter in `folder` was trained on `given`, the base that `settings` name.

    An adapter trained without `quantization` also needs the base stored in the same number of bits.
    """
    trained = read_base(folder)
    if differ := [part for part in ("weights", "tokenizer") if getattr(trained, part) != getattr(given, part)]:
        raise UserError(
            f"{folder} was trained on {trained.name}, whose {' and '.join(differ)} are not those of {given.name}; name"
            f" the folder that holds the same base with {key}=..."
        )
    if settings.quantization is None and trained.stored != given.stored:
        before, now = (base.stored or "as they came" for base in (trained, given))
        raise UserError(
            f"{folder} was trained on weights {before}, and those of {given.name} here are {now}; name a folder that"
            f" holds them {before} with {key}=..."
        )


def weights_folder(settings: ModelSettings) -> Path:
    """The local folder of the weights: the given one, or the one in the hub's cache."""
    from transformers.utils import cached_file

    source = locate(str(settings.name_or_path))
    if Path(source).is_dir():
        return Path(source)
    return Path(str(cached_file(source, "config.json", revision=settings.revision))).parent


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers loads; a repository may also hold the same weights in other formats."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.exists():  # transformers looks for it first
        return [whole]
    return _listed_files(index) if index.exists() else []


def _listed_files(index: Path) -> list[Path]:
    """The files of an index. Raises UserError where it lists none, or one that is not in its folder."""
    names = read_json(index).get("weight_map")
    listed = sorted(set(map(str, names.values()))) if isinstance(names, dict) else []
    if not listed:
        raise UserError(f"{index} lists no weights; {COMPLETE}")
    if missing := [name for name in listed if Path(name).name != name or not (index.parent / name).is_file()]:
        raise UserError(f"{index} names {first_five(missing)}, no file of its folder; {COMPLETE}")
    return [index.parent / name for name in listed]


def fingerprint(folder: Path) -> str:
    """SHA-256 over each tensor's name, dtype, shape and first bytes, however the tensors are spread over files.

    Raises UserError for a file that is no safetensors, or was cut.
    """
    tensors = sorted(line for path in weight_files(folder) for line in _tensor_lines(path))
    if not tensors:  # of pickled weights only the file sizes are compared
        tensors = sorted(f"{path.name} {path.stat().st_size}".encode() for path in folder.glob("*.bin"))
    return hashlib.sha256(b"\n".join(tensors)).hexdigest()[:16]


def _tensor_lines(path: Path) -> list[bytes]:
    lines, size = [], path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, MAX_HEADER_BYTES)))
            header.pop("__metadata__", None)
            for name, tensor in header.items():
                begin, end = tensor["data_offsets"]
                if not 0 <= begin <= end:
                    raise ValueError
                file.seek(8 + length + begin)
                sample = file.read(min(SAMPLE_BYTES, end - begin))
                lines.append(f"{name} {tensor['dtype']} {tensor['shape']} ".encode() + sample)
        last = 8 + length + max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
    except (struct.error, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        raise UserError(f"{path} is no safetensors file, or its header is damaged; {COMPLETE}") from None
    if last != size:
        raise UserError(f"{path} has {size:,} bytes, and its header describes {last:,}: it was cut; {COMPLETE}")
    return lines
