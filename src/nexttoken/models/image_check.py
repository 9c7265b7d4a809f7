"""The check of a machine before a prediction: versions of packages, and devices that torch can use.

python -m nexttoken.models.image_check requirements.txt
"""

import platform
import sys
from collections.abc import Sequence
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
    for number in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(number)
        name, memory = torch.cuda.get_device_name(number), torch.cuda.get_device_properties(number).total_memory
        if not runs_on((major, minor), torch.cuda.get_arch_list()):
            what = f"torch {torch.__version__} has no code for {name} (sm_{major}{minor})"
            sys.exit(f"{what}: set machine_shape to NvidiaTeslaT4 in kernel-metadata.json (device=t4x2)")
        lines.append(f"GPU {number}: {name}, {memory / 2**30:.1f} GiB, sm_{major}{minor}")
    return lines or ["no GPU: the CPU predicts"]


def runs_on(capability: tuple[int, int], architectures: Sequence[str]) -> bool:
    """True where code for one of torch's `architectures`, such as sm_86, runs on a GPU of this compute capability.

    That is code of the same major number and the same or a lower minor one, or PTX of any lower number.
    """
    for name in architectures:
        kind, _, digits = name.partition("_")
        own = int(digits.rstrip("af")[:-1]), int(digits.rstrip("af")[-1])
        if own <= capability and (own[0] == capability[0] or kind == "compute"):
            return True
    return False


if __name__ == "__main__":
    main(Path(sys.argv[1]))
