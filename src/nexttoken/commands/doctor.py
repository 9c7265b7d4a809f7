"""Show what this machine can run, what is missing, and what would be chosen and why: one screen.

python -m nexttoken doctor network=true
python -m nexttoken doctor

Arguments:
  network=true     ask the hub whether it answers (default: the network is left alone)
  output_dir=...   folder of the runs (default: output)

Each line is ok, a note or bad; the fix stands below. The exit status is 1 where something is bad: nothing runs then.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from nexttoken.commands.arguments import Arguments
from nexttoken.commands.diagnosis.finding import Finding

BROKEN = 1  # the exit status where something essential is amiss


class DoctorArguments(Arguments):
    network: bool = False
    output_dir: Path = Path("output")


def main(arguments: Sequence[str]) -> None:
    given = DoctorArguments.parse(arguments)
    is_broken = False
    for finding in findings(given):
        print("\n".join(finding.lines()), flush=True)  # at once, since later ones take seconds
        is_broken = is_broken or finding.breaks
    if is_broken:
        sys.exit(BROKEN)


def findings(given: DoctorArguments) -> Iterator[Finding]:
    """All findings, the quick ones first. Those that need torch are left out where packages are broken."""
    from nexttoken.commands.diagnosis.hardware import check_gpus, check_memory, check_processor, free_memory
    from nexttoken.commands.diagnosis.installation import check_installation
    from nexttoken.commands.diagnosis.places import check_folder, check_hub, check_shared_memory
    from nexttoken.data.files import cache_dir

    installation = check_installation()
    yield from installation
    yield check_processor()
    yield check_memory()
    yield check_folder("output", given.output_dir)
    yield check_folder("cache", cache_dir())
    yield from check_shared_memory()
    if any(finding.breaks for finding in installation):
        return
    yield check_hub(given.network)
    yield from check_gpus()
    from nexttoken.commands.diagnosis.choices import check_choices, check_models
    from nexttoken.models.gpus import usable_gpus

    gpus = usable_gpus()
    free = gpus[0].free if gpus else free_memory()
    yield from check_choices(gpus, free)
    yield from check_models(free)
