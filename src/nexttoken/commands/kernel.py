"""Write the folder of an offline Kaggle notebook that predicts with a finished run: code, run, wheels, notebook.

python -m nexttoken kernel run=output/lmsys/<name> out=kernel id=<user>/<name>
python -m nexttoken kernel run=output/lmsys/<a>,output/lmsys/<b> out=kernel \\
    base=google/gemma-2/transformers/gemma-2-9b-it/2
python -m nexttoken kernel rehearse kernel rows=25000
python -m nexttoken kaggle push kernel

Arguments:
  run=...            a finished run or a blend; several with a comma between them are averaged with equal weights
  out=...            the new folder
  id=<user>/<name>   your name on Kaggle and the kernel's name; the data set is called <name>-files
  competition=...    its name in its address, or owner/name of a data set with its files (default: the task's)
  within=8h30m       time limit of the prediction
  device=t4x2        the machine on Kaggle: t4x2, l4, a100_40gb, h100, rtx_pro_6000 or cpu
  base=...           the base model: a Kaggle model (owner/model/framework/variation/version) or a folder, which is
                     copied; for runs on several ones name=... with commas (default: the run's own folder)
  image=...          a file with the packages of Kaggle's image, as pip freeze prints them (default: the usual ones)
  passages=...       recorded passages, for a run that searches the web
  fold=all           the final model on all rows instead of the folds
  cascade=...        a larger run for the rows that this one is least sure of
  cascade_share=...  their share, 0 to 1 (default: chosen out of fold)

Of `kernel rehearse <folder>`, which runs the notebook as Kaggle would: without network, on read-only input, under the
machine's limits, at the size of the hidden test. It ends with `pass`, or with Kaggle's error, its cause and the fix:
    rows=25000         rows of the hidden test: the visible ones, then harder ones made from them by seed=0
    input_dir=...      the competition's files (default: as in the run's training)
    base=...           the folder of a base model that is on Kaggle alone
    versions=here      packages: here (those installed here), or oldest, newest: those with which predictions are tried,
                       installed once from the registry, some gigabytes each
    scale=...          the time limits are divided by this (default: so that the notebook has ten minutes)

The data set in the folder is flat, because uploads skip folders. The notebook installs what the image lacks without
network, checks device and versions, predicts, and validates; it writes in the working folder only.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from nexttoken.commands.arguments import Arguments, NewPath
from nexttoken.errors import UserError
from nexttoken.models.device_sheets import SHEETS, find_sheet
from nexttoken.settings import FoldNumber

CPU = "cpu"  # a kernel without an accelerator
SLUG = re.compile(r"[a-z0-9](?:-?[a-z0-9])+")
MAX_SLUG = 50
NOBODY = "your-name"
DURATION = r"\d+h(\d+m)?(\d+s)?|\d+m(\d+s)?|\d+s"


class KernelArguments(Arguments):
    run: Annotated[str, Field(examples=["output/<task>/<name>"])]
    out: Annotated[NewPath, Field(examples=["kernel"])]
    id: str | None = None
    competition: str | None = None
    within: Annotated[str, Field(pattern=f"^({DURATION})$")] = "8h30m"
    device: str = "t4x2"
    base: str | None = None
    image: Path | None = None
    passages: Path | None = None
    fold: FoldNumber | None = None
    cascade: Path | None = None
    cascade_share: Annotated[float | None, Field(ge=0, le=1)] = None


def main(arguments: Sequence[str]) -> None:
    if arguments and arguments[0] == "rehearse":
        from nexttoken.commands.rehearsal.rehearse import rehearse

        rehearse(arguments[1:])
        return
    given = KernelArguments.parse(arguments)
    shape, identity = machine_shape(given.device), kernel_id(given)
    from nexttoken.commands.kernel_folder.build import Plan, build_kernel

    plan = Plan(given.out, identity, shape, given.device, given.within, given.competition, cascade_of(given))
    for line in build_kernel(plan, given.run, given.base, given.image, given.passages, given.fold):
        print(line)
    print(f"next: python -m nexttoken kaggle push {given.out}")


def cascade_of(given: KernelArguments) -> tuple[Path, float | None] | None:
    """The larger run of a cascade and its share. Raises UserError for a share or a final model that it cannot use."""
    if given.cascade is None:
        if given.cascade_share is not None:
            raise UserError(
                "cascade_share=... is the share of a larger run; name it, too: cascade=output/<task>/<name>"
            )
        return None
    if given.fold is not None:
        raise UserError("cascade=... asks both runs as they were trained; leave fold out")
    return given.cascade, given.cascade_share


def machine_shape(device: str) -> str:
    """Kaggle's name of the machine. Raises UserError for one that it does not have, or that torch cannot use."""
    sheet = None if device == CPU else find_sheet(device)
    if device != CPU and (sheet is None or sheet.kaggle is None):
        known = [name for name, one in SHEETS.items() if one.kaggle and not one.refused]
        raise UserError(f"device={device} is no machine of Kaggle; choose {', '.join(known)} or {CPU}")
    return sheet.kaggle.machine_shape if sheet and sheet.kaggle else ""


def kernel_id(given: KernelArguments) -> str:
    """`user/name` of the kernel. Raises UserError for a name that Kaggle would change."""
    default = re.sub(r"[^a-z0-9]+", "-", Path(given.run.split(",")[0]).name.lower()).strip("-")
    identity = given.id or f"{NOBODY}/nexttoken-{default}"[: MAX_SLUG - 10].rstrip("-")
    user, _, name = identity.partition("/")
    if not user or not SLUG.fullmatch(name) or not 6 <= len(name) <= MAX_SLUG - len("-files"):
        expected = f"<user>/<name> with a name of 6 to {MAX_SLUG - len('-files')} small letters, digits and single -"
        raise UserError(f"id={identity}: expected {expected}")
    return identity
