"""The data set of a kernel: flat files, since Kaggle's uploads skip folders, and a manifest with the place of each."""

import json
import re
import shutil
import zipfile
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nexttoken.data.files import hash_file, read_json, write_json
from nexttoken.data.secrets import variables_in
from nexttoken.errors import UserError, file_name
from nexttoken.runs.seals import KEY, hash_values

NAMES = re.compile(
    r"kaggle\.json|(access_)?token|stored_tokens|[._]?netrc|.*\.env(\..*)?|.*\.(pem|key|p12|pfx)|id_(rsa|dsa|ecdsa|ed25519)"
    r"|(application_default_)?credentials(\.json)?|\.?(pypirc|pgpass|htpasswd)|\.git-credentials",
    re.IGNORECASE,
)
TOKENS = re.compile(
    r"\bhf_[A-Za-z0-9]{30,}|\bKGAT_[A-Za-z0-9]{20,}|\bgh[pousr]_[A-Za-z0-9]{36}|\bgithub_pat_\w{50,}|\bAKIA[0-9A-Z]{16}\b"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)  # of Hugging Face, Kaggle, GitHub, Amazon; private keys
MAX_BYTES = 2**20  # of a file that is read: larger ones are weights, tokenizers and tables
MANIFEST = "manifest.json"
DATA_SET = "dataset"  # the folder in a kernel folder that becomes one Kaggle data set
KERNEL_FILES = ("kernel-metadata.json", "notebook.ipynb", f"{DATA_SET}/dataset-metadata.json")
CODE = "code.zip"
CODE_FOLDERS = ("conf", "src/nexttoken", "src/hydra_plugins")  # beside predict.py, in the folder of the checkout
AGAIN = "build the folder again: python -m nexttoken kernel"
VERSIONS = ("torch", "transformers", "numpy", "pandas", "scikit-learn", "peft", "bitsandbytes")


def refuse_credentials(path: Path) -> None:
    """Raise UserError for a file that has the name of credentials, or holds a token or a secret of the environment."""
    reason = "has the name of a file with credentials" if NAMES.fullmatch(path.name) else ""
    if not reason and path.stat().st_size <= MAX_BYTES:
        text = path.read_text(encoding="utf-8", errors="replace")
        if variables := variables_in(text):
            reason = f"holds the value of the environment variable {variables[0]}"
        elif found := TOKENS.search(text):
            reason = f"holds a token or key ({found[0][:5]}...)"
    if reason:
        raise UserError(f"{path} {reason}, and a kernel's files are uploaded; move it elsewhere, or remove the secret")


@dataclass
class FlatFiles:
    """Files in one folder; `places` has the place of each at which the notebook lays it, by its name here."""

    folder: Path
    places: dict[str, str] = field(default_factory=dict)

    def add(self, source: Path, place: str) -> None:
        """Copy a file, or all files below a folder but hidden ones. Raises UserError for a file with credentials."""
        if source.is_dir():
            for path in sorted(source.iterdir()):
                if not path.name.startswith("."):
                    self.add(path, f"{place}/{path.name}")
            return
        refuse_credentials(source)
        shutil.copyfile(source, self.folder / self.name(place))

    def name(self, place: str) -> str:
        """A new name without folders, spaces and brackets, which Kaggle would change."""
        words = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(place.split("/")[-3:]))[-80:].lstrip(".-")
        name = f"{len(self.places):04d}-{words}"
        self.places[name] = place
        return name


def add_code(folder: Path, checkout: Path) -> None:
    """Write code.zip: the package, conf/ and predict.py, without hidden files.

    Raises UserError where they are not in `checkout`, and for a file with credentials.
    """
    paths = [checkout / "predict.py"]
    paths += [path for name in CODE_FOLDERS for path in (checkout / name).rglob("*") if path.is_file()]
    if not all((checkout / name).exists() for name in (*CODE_FOLDERS, "predict.py")):
        raise UserError(
            f"{checkout} has no predict.py, conf/ and src/; run the command in a checkout of the repository"
        )
    with zipfile.ZipFile(folder / CODE, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(paths):
            relative = path.relative_to(checkout)
            if not any(part.startswith((".", "__pycache__")) for part in relative.parts):
                refuse_credentials(path)
                member = zipfile.ZipInfo(relative.as_posix())  # of 1980: equal code, equal bytes
                archive.writestr(member, path.read_bytes(), zipfile.ZIP_DEFLATED)


def write_manifest(kernel: Path, flat: FlatFiles, settings: dict[str, Any]) -> None:
    """Write manifest.json: what the notebook needs to know, and size and hash of every file of the kernel folder."""
    folder = kernel / DATA_SET
    files = {}
    for path in sorted(folder.iterdir()):
        if path.name != MANIFEST and f"{DATA_SET}/{path.name}" not in KERNEL_FILES:
            place = {"place": flat.places[path.name]} if path.name in flat.places else {}
            files[path.name] = place | {"bytes": path.stat().st_size, "sha256": hash_file(path)}
    beside = {name: hash_file(kernel / name) for name in KERNEL_FILES}
    values = {**settings, "versions": installed_versions(), "kernel": beside, "files": files}
    write_json({**values, KEY: hash_values(values)}, folder / MANIFEST)


def installed_versions() -> dict[str, str]:
    """The versions of this machine's packages that matter for a prediction."""
    found = {}
    for name in VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def check_kernel(kernel: Path) -> dict[str, Any]:
    """The manifest of a kernel folder. Raises UserError for a folder of another kind, or with a file that differs."""
    folder = kernel / DATA_SET
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{kernel} is no kernel folder, it has no {DATA_SET}/{MANIFEST}; {AGAIN} run=... out={kernel}")
    manifest = read_json(folder / MANIFEST)
    if manifest.get(KEY) != hash_values(manifest):
        raise UserError(f"{folder / MANIFEST} was changed by hand; {AGAIN}")
    for name, one in manifest["files"].items():
        for part in (name, *one.get("place", name).split("/")):
            file_name(part, f"{MANIFEST}: a file or its place")  # a link is made there: never outside of the folder
    hashes = {f"{DATA_SET}/{name}": one["sha256"] for name, one in manifest["files"].items()} | manifest["kernel"]
    for name, sha256 in hashes.items():
        if not (kernel / name).is_file():
            raise UserError(f"{kernel / name} is gone since the kernel folder was built; {AGAIN}")
        if hash_file(kernel / name) != sha256:
            raise UserError(f"{kernel / name} was changed after the kernel folder was built; {AGAIN}")
    known = {*hashes, f"{DATA_SET}/{MANIFEST}"}
    found = {f"{DATA_SET}/{path.name}" for path in folder.iterdir()}
    if more := sorted(found - known):
        raise UserError(f"{kernel / more[0]} was added after the kernel folder was built; remove it, or {AGAIN}")
    return manifest


def read_metadata(kernel: Path) -> dict[str, Any]:
    """kernel-metadata.json."""
    return json.loads((kernel / KERNEL_FILES[0]).read_text(encoding="utf-8"))
