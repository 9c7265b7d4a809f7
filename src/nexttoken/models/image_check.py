"""The check of a machine before a prediction: versions of packages, and devices that torch can use.

python -m nexttoken.models.image_check requirements.txt
"""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from packaging.requirements import Requirement


def main(path: Path) -> None:
    """Print versions and devices; end with one line for an absent or untried package, or a GPU that torch lacks."""
    print(f"Python {platform.python_version()}")
    lacks = []
    for line in path.read_text(encoding="utf-8").splitlines():
        wanted = Requirement(line)
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            lacks.append(wanted.name)
            continue
        print(f"{wanted.name} {found}")
        if not wanted.specifier.contains(found, prereleases=True):
            lacks.append(f"{wanted} (it has {found}, with which nothing was tried)")
    if lacks:
        sys.exit(f"the image lacks {', '.join(lacks)}: build the kernel with image=<list of what the image holds>")
    print("\n".join(devices()))


def devices() -> list[str]:
    """A line for each GPU. Ends with one line where this torch has no code for one."""
    lines = []
    known = [name.rpartition("_")[2].rstrip("af") for name in torch.cuda.get_arch_list()] if has_gpu() else []
    for number in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(number)
        name, memory = torch.cuda.get_device_name(number), torch.cuda.get_device_properties(number).total_memory
        if not any(one == f"{major}{minor}" or (one[:-1] == str(major) and one[-1] <= str(minor)) for one in known):
            what = f"torch {torch.__version__} has no code for {name} (sm_{major}{minor})"
            sys.exit(f"{what}: set machine_shape to NvidiaTeslaT4 in kernel-metadata.json (device=t4x2)")
        lines.append(f"GPU {number}: {name}, {memory / 2**30:.1f} GiB, sm_{major}{minor}")
    return lines or ["no GPU: the CPU predicts"]


def has_gpu() -> bool:
    return torch.cuda.is_available()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
