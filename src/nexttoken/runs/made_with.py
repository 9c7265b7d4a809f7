"""Facts beside settings and data on which a run's numbers depend: code, versions, processor; kept in metrics.json."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from nexttoken.data.files import hash_text
from nexttoken.data.machine import processor
from nexttoken.settings import Settings

KEY, BASE = "made_with", "base"
PACKAGE = Path(__file__).resolve().parents[1]
PACKAGES = (  # that read, tokenise or compute
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "peft",
    "bitsandbytes",
    "accelerate",
    "lightning",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "jinja2",
)
GIT_SECONDS = 10.0


def made_with() -> dict[str, Any]:
    """The facts of this process, for `metrics.json`; the device and the threads stand beside them, in `device`."""
    return {
        "commit": commit(),
        "code": code_hash(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": processor(),
        **{name: version for name in PACKAGES if (version := installed(name))},
    }


def base_weights(settings: Settings) -> dict[str, str]:
    """The fingerprint of the pretrained weights that a training begins with, as a further fact; of a new model none."""
    if settings.model.name_or_path is None:
        return {}
    from nexttoken.models.base_model import fingerprint, weights_folder  # needs torch

    return {BASE: fingerprint(weights_folder(settings.model))}


def commit(folder: Path = PACKAGE) -> str | None:
    """The commit of the checkout that holds the package, with `-dirty` where tracked files were changed since.

    None for an installed copy, and without git.
    """
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:  # a checkout of something else
        return None
    return _git(folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def code_hash(folder: Path = PACKAGE) -> str:
    """SHA-256 of all modules of the package: the same code has the same one, with git or without."""
    texts = [f"{path.relative_to(folder)}\n{path.read_text(encoding='utf-8')}" for path in sorted(folder.rglob("*.py"))]
    return hash_text("\n".join(texts))


def installed(package: str) -> str | None:
    """The installed version of a package, None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> str | None:
    """The answer of git, None where it is not there or refuses."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
