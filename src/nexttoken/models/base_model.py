"""Which base model an adapter belongs to: a fingerprint of the weights that is the same for every copy of them."""

import hashlib
import json
import struct
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nexttoken.data.files import read_json, write_json
from nexttoken.errors import UserError
from nexttoken.models.hub import locate
from nexttoken.settings import ModelSettings

FILE = "base.json"
SAMPLE_BYTES = 256  # read of each tensor: enough to tell two fine-tunes apart, and quick for 140 GB


@dataclass(frozen=True)
class Base:
    """A model's origin: its name is for people, the fingerprints decide."""

    name: str
    weights: str
    tokenizer: str
    stored: str = ""  # how a copy saved by this project holds the weights, such as "int8"; "" for the model itself

    def save(self, folder: Path) -> None:
        write_json(asdict(self), folder / FILE)

    def as_stored(self, stored: str) -> "Base":
        """The same base in other bits."""
        return replace(self, stored=stored)


def read_base(folder: Path) -> Base:
    try:
        return Base(**read_json(folder / FILE))
    except TypeError:
        raise UserError(
            f"{folder / FILE} does not name a base model; train this fold again with overwrite=true"
        ) from None


def identify(settings: ModelSettings, tokenizer: Any) -> Base:
    """The base that `settings` name; a 4-bit copy saved by this project is the model that it was made from."""
    assert settings.name_or_path is not None
    folder = weights_folder(settings)
    if (folder / FILE).exists():
        return read_base(folder)
    words = json.dumps([sorted(tokenizer.get_vocab().items()), tokenizer.chat_template])
    return Base(settings.name_or_path, _fingerprint(folder), hashlib.sha256(words.encode()).hexdigest()[:16])


def refuse_other(saved: Base, asked: Base, where: Path) -> None:
    """Raise UserError when `asked` is not the base that the adapter in `where` was trained on."""
    differ = [part for part in ("weights", "tokenizer") if getattr(saved, part) != getattr(asked, part)]
    if differ:
        raise UserError(
            f"{where} was trained on {saved.name}, whose {' and '.join(differ)} are not those of {asked.name}; name the"
            " folder that holds the same base with base=..."
        )


def refuse_other_storage(saved: Base, asked: Base, where: Path) -> None:
    """Raise UserError when an adapter that was trained without `quantization` meets the same base in other bits."""
    if saved.stored != asked.stored:
        ways = [base.stored or "as they came" for base in (saved, asked)]
        raise UserError(
            f"{where} was trained on weights {ways[0]}, and those of {asked.name} here are {ways[1]}; name a folder"
            f" that holds them {ways[0]} with base=..."
        )


def weights_folder(settings: ModelSettings) -> Path:
    """Where the weights lie on this disk: the folder itself, or the hub's cache."""
    from transformers.utils import cached_file

    source = locate(str(settings.name_or_path))
    if Path(source).is_dir():
        return Path(source)
    return Path(str(cached_file(source, "config.json", revision=settings.revision))).parent


def _fingerprint(folder: Path) -> str:
    """SHA-256 over each tensor's name, dtype, shape and first bytes, however the tensors are spread over files."""
    tensors = sorted(line for path in weight_files(folder) for line in _tensors(path))
    if not tensors:  # pickled weights: their files' sizes have to do
        tensors = sorted(f"{path.name} {path.stat().st_size}".encode() for path in folder.glob("*.bin"))
    return hashlib.sha256(b"\n".join(tensors)).hexdigest()[:16]


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers loads; a repository may hold the same weights in another form, too."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        return sorted({folder / name for name in read_json(index)["weight_map"].values()})
    return [path for path in [folder / "model.safetensors"] if path.exists()]


def _tensors(path: Path) -> list[bytes]:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        found = []
        for name, tensor in header.items():
            begin, end = tensor["data_offsets"]
            file.seek(8 + length + begin)
            sample = file.read(min(SAMPLE_BYTES, end - begin))
            found.append(f"{name} {tensor['dtype']} {tensor['shape']} ".encode() + sample)
    return found
