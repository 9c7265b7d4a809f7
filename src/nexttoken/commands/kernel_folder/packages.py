"""The packages that a prediction needs, and wheels of those that a kernel's image lacks."""

import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nexttoken.errors import UserError, one_line

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

# Ranges in which predictions were tried, oldest and newest (images/). Training has its own in pyproject.toml.
# transformers 4 would read a saved model's rotary base as its default, without an error.
ALWAYS = {
    "torch": ">=2.6",
    "transformers": ">=5.0,<6",
    "numpy": ">=1.26",
    "pandas": ">=2.2",
    "pydantic": ">=2.9",
    "hydra-core": "==1.3.*",
    "psutil": "",
    "jinja2": ">=3.1",
    "safetensors": "",
    "pyyaml": "",
}
ADAPTER = {"peft": ">=0.17", "accelerate": ">=1.1"}
QUANTIZED = {"bitsandbytes": ">=0.46", "accelerate": ">=1.1"}
BM25 = {"bm25s": ">=0.2", "fugashi": ">=1.4", "unidic-lite": ">=1.0"}
BASELINES = {"scikit-learn": ">=1.5", "scipy": ">=1.13"}
PARQUET = {"pyarrow": ">=15"}
# Packages of Kaggle's images, where image= gives no list: as of the newest one that is known here.
USUAL = re.findall(
    r"\S+",
    """torch transformers tokenizers huggingface-hub safetensors accelerate numpy pandas scipy scikit-learn pyarrow
    pydantic pydantic-core annotated-types typing-extensions typing-inspection psutil jinja2 markupsafe pyyaml
    packaging tqdm regex filelock fsspec requests sympy networkx""",
)


def normal(name: str) -> str:
    """A package's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def needed_packages(configs: Iterable[Mapping[str, Any]], has_baselines: bool = False) -> dict[str, str]:
    """The packages that the runs with these configurations need to predict, each with its range.

    `has_baselines` is true for a blend with the task's simple predictors, which are fitted again.
    """
    needed = ALWAYS | (BASELINES if has_baselines else {})
    for config in configs:
        trains = config["trainer"].get("max_epochs", 1) > 0
        needed |= ADAPTER if config.get("adapter") and trains else {}
        needed |= QUANTIZED if config.get("quantization") else {}
        needed |= BM25 if "BM25" in str([config.get("inference"), config.get("candidates")]) else {}
        needed |= PARQUET if any(Path(str(config.get("input_dir"))).glob("*.parquet")) else {}
    return needed


def read_image(path: Path | None) -> dict[str, str]:
    """The packages of an image, from lines `name==version` as pip freeze prints them; without a file the usual ones.

    Raises UserError where the file cannot be read, or has no such line.
    """
    if path is None:
        return dict.fromkeys(USUAL, "")
    if not path.is_file():
        raise UserError(f"{path} is no file; expected the image's packages, a line name==version each (pip freeze)")
    pairs = re.findall(
        r"^\s*([A-Za-z0-9][\w.-]*)\s*(?:===?\s*([^\s;#]+)|@\s.*)$", path.read_text("utf-8", "replace"), re.M
    )
    if not pairs:
        raise UserError(f"{path} has no line name==version; write what pip freeze prints in a notebook on Kaggle")
    return {normal(name): version for name, version in pairs}


def missing_packages(needed: Mapping[str, str], image: Mapping[str, str]) -> list[Distribution]:
    """The needed packages, and those that they need themselves, that the image lacks or has in another version.

    `needed` has the range of each. Raises UserError for torch, which belongs to the image's CUDA, and for a package
    that is not installed here, whose version would not be known.
    """
    from packaging.requirements import Requirement

    found: dict[str, Distribution] = {}
    left = [Requirement(f"{name}{wanted}") for name, wanted in needed.items()]
    while left:
        requirement = left.pop()
        name = normal(requirement.name)
        if name in found or (name in image and _fits(image[name], requirement.specifier)):
            continue
        if name == "torch":
            held = f"torch {image[name]}" if name in image else "no torch"
            raise UserError(
                f"the image holds {held}, expected {requirement}; choose a newer image, a kernel brings none"
            )
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            raise UserError(f"the kernel needs {name}, which is not installed here; pip install {name}") from None
        requirements = map(Requirement, found[name].requires or ())
        left += [one for one in requirements if one.marker is None or one.marker.evaluate({"extra": ""})]
    return [found[name] for name in sorted(found)]


def _fits(version: str, wanted: "SpecifierSet") -> bool:
    """True for a version in the range, and for one that is not known."""
    from packaging.version import InvalidVersion

    try:
        return not version or wanted.contains(version, prereleases=True)
    except InvalidVersion:
        return True


def add_wheel(package: Distribution, folder: Path, python: str) -> Path:
    """Write the wheel of an installed package: packed again, or fetched where it was built for another Python.

    `python` is the image's, such as "3.11". Raises UserError where it cannot be fetched.
    """
    head = package.read_text("WHEEL") or ""
    tags = re.findall(r"^Tag: (\S+)", head, re.M)
    if tags and (python == here() or all(tag.endswith("-none-any") for tag in tags)):
        return pack_wheel(package, folder, tags)
    wanted = f"{package.name}=={package.version}"
    options = ["--no-deps", "--only-binary", ":all:", "--python-version", python, "--quiet"]
    options += [word for tag in ("manylinux2014_x86_64", "manylinux_2_28_x86_64") for word in ("--platform", tag)]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = one_line(next((line for line in done.stderr.splitlines() if "ERROR" in line), done.stderr))
        raise UserError(f"no wheel of {wanted} for Python {python} could be fetched ({reason}); check the registry")
    return next(folder.glob(f"{package.name.replace('-', '_')}-*.whl"))


def here() -> str:
    """This machine's Python, such as "3.11"."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def pack_wheel(package: Distribution, folder: Path, tags: list[str]) -> Path:
    """Write the wheel that an installed package came from, without scripts and compiled files."""
    tag = "-".join(".".join(dict.fromkeys(words)) for words in zip(*(one.split("-") for one in tags), strict=True))
    path = folder / f"{re.sub(r'[-_.]+', '_', package.name)}-{package.version}-{tag}.whl"
    dropped = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        record, lines = "", []
        for file in sorted(package.files or (), key=str):
            info = file.parts[0].endswith(".dist-info")
            record = f"{file.parts[0]}/RECORD" if info else record
            if ".." in file.parts or "__pycache__" in file.parts or (info and file.name in dropped):
                continue
            wheel.writestr(zipfile.ZipInfo(str(file)), Path(str(file.locate())).read_bytes(), zipfile.ZIP_DEFLATED)
            lines.append(f"{file},{f'{file.hash.mode}={file.hash.value}' if file.hash else ''},{file.size or ''}")
        wheel.writestr(zipfile.ZipInfo(record), "\n".join([*lines, f"{record},,", ""]))
    return path
