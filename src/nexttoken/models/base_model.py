"""Identity of a base model: a fingerprint of its weights and tokenizer that is the same for every copy."""

import hashlib
import json
import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nexttoken.data.files import RETRAIN, hash_text, read_json, write_json
from nexttoken.errors import UserError
from nexttoken.models.hub import locate
from nexttoken.settings import ModelSettings, Settings

FILE = "base.json"
SAMPLE_BYTES = 256  # read of each tensor: enough to tell fine-tuned models apart, and quick for 140 GB


@dataclass(frozen=True)
class Base:
    """A base model; `weights` and `tokenizer` are the fingerprints that identify it, `name` is for people."""

    name: str
    weights: str
    tokenizer: str
    stored: str = ""  # storage of a quantised copy saved by this project, such as "int8"; "" for the model itself

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
        return read_base(folder)
    words = json.dumps([sorted(tokenizer.get_vocab().items()), tokenizer.chat_template])
    return Base(settings.name_or_path, _fingerprint(folder), hash_text(words)[:16])


def refuse_other_base(folder: Path, settings: Settings, given: Base) -> None:
    """Raise UserError unless the adapter in `folder` was trained on `given`, the base that `settings` name.

    An adapter trained without `quantization` also needs the base stored in the same number of bits.
    """
    trained = read_base(folder)
    if differ := [part for part in ("weights", "tokenizer") if getattr(trained, part) != getattr(given, part)]:
        raise UserError(
            f"{folder} was trained on {trained.name}, whose {' and '.join(differ)} are not those of {given.name}; name"
            " the folder that holds the same base with base=..."
        )
    if settings.quantization is None and trained.stored != given.stored:
        before, now = (base.stored or "as they came" for base in (trained, given))
        raise UserError(
            f"{folder} was trained on weights {before}, and those of {given.name} here are {now}; name a folder that"
            f" holds them {before} with base=..."
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
    index = folder / "model.safetensors.index.json"
    if index.exists():
        return sorted({folder / name for name in read_json(index)["weight_map"].values()})
    return [path for path in [folder / "model.safetensors"] if path.exists()]


def _fingerprint(folder: Path) -> str:
    """SHA-256 over each tensor's name, dtype, shape and first bytes, however the tensors are spread over files."""
    tensors = sorted(line for path in weight_files(folder) for line in _tensor_lines(path))
    if not tensors:  # of pickled weights only the file sizes are compared
        tensors = sorted(f"{path.name} {path.stat().st_size}".encode() for path in folder.glob("*.bin"))
    return hashlib.sha256(b"\n".join(tensors)).hexdigest()[:16]


def _tensor_lines(path: Path) -> list[bytes]:
    lines = []
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        for name, tensor in header.items():
            begin, end = tensor["data_offsets"]
            file.seek(8 + length + begin)
            sample = file.read(min(SAMPLE_BYTES, end - begin))
            lines.append(f"{name} {tensor['dtype']} {tensor['shape']} ".encode() + sample)
    return lines
