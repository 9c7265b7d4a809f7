"""What a folder of weights that this project writes says about itself: a README, and the licences it came with."""

import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from nexttoken.models.base_model import weights_folder
from nexttoken.settings import ModelSettings

LICENCES = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")
PACKAGES = ("bitsandbytes", "peft", "transformers", "torch")


def write_note(folder: Path, title: str, base_name: str, facts: Mapping[str, str]) -> None:
    """Write README.md: what this is, whose licence applies to it, how it was made and by which versions."""
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    lines = [f"- {name}: {text}" for name, text in {**facts, "versions": versions}.items()]
    licence = f"The licence of {base_name} applies to these weights, too: {licence_page(base_name)}"
    text = "\n".join([f"# {title}", "", licence, "", *lines]) + "\n"
    (folder / "README.md").write_text(text, encoding="utf-8")


def licence_page(base_name: str) -> str:
    """Where the licence is to be read: the model's page on the hub, or its folder."""
    from huggingface_hub import constants

    if Path(base_name).expanduser().is_dir():
        return "see the files in that folder."
    return f"{constants.ENDPOINT}/{base_name}"


def copy_licences(settings: ModelSettings, folder: Path) -> None:
    """Most licences ask to travel with the weights."""
    source = weights_folder(settings)
    for path in {path for pattern in LICENCES for path in source.glob(pattern) if path.is_file()}:
        shutil.copyfile(path, folder / path.name)
