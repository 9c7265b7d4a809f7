"""The grid of a sweep: its jobs are counted, and the settings of all of them checked, before the first one begins."""

import shlex
import sys
from collections.abc import Iterable, Sequence
from copy import deepcopy
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from nexttoken.commands.typed import varied
from nexttoken.data.secrets import without_secrets
from nexttoken.errors import UserError, visible

if TYPE_CHECKING:
    from omegaconf import DictConfig

MAX_JOBS = 10_000


def num_jobs(overrides: Iterable[Any]) -> int:
    """The number of jobs of parsed overrides (Hydra's), of which a later one replaces an earlier one of its key.

    Raises UserError for several values that are none, and for more jobs than MAX_JOBS: Hydra lists all of them before
    the first, which takes all memory where someone types range(0,1000000000).
    """
    number = 1
    for one in {one.get_key_element(): one for one in overrides}.values():
        number *= num_values(one) if one.is_discrete_sweep() else 1
    if number > MAX_JOBS:
        raise UserError(f"this grid has more than {MAX_JOBS:,} jobs; give fewer values, or search (docs/sweeps.md)")
    return number


def num_values(override: Any) -> int:
    """The number of its values, at most one more than MAX_JOBS. Raises UserError for none, as of glob(x*)."""
    number = sum(1 for _ in islice(override.sweep_string_iterator(), MAX_JOBS + 1))
    if not number:
        raise UserError(f"{override.input_line} has no values; give some, or a pattern that fits choices of --help")
    return number


def check_jobs(jobs: Sequence[Sequence[str]], loader: Any, master: "DictConfig") -> None:
    """Name the first of the jobs, given by their overrides, whose settings do not fit; the others may go on.

    Raises UserError where no job's settings fit. No file of data or of a run is read: an earlier job may make it.
    `loader` is Hydra's, and `master` the configuration of the sweep. Choices of groups are composed once for all jobs
    that have them, since that takes Hydra long.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    texts = [*dict.fromkeys(chain(*jobs))]
    parsed = dict(zip(texts, OverridesParser.create(config_loader=loader).parse_overrides(texts), strict=True))
    choices = {text for text, one in parsed.items() if loader.repository.group_exists(one.key_or_group)}
    composed: dict[tuple[str, ...], DictConfig] = {}
    faults: list[tuple[Sequence[str], str]] = []
    for job in jobs:
        chosen = tuple(one for one in job if one in choices)
        if chosen not in composed:
            composed[chosen] = without_hydra(loader.load_sweep_config(master, [*chosen]))
        config = deepcopy(composed[chosen])
        loader._apply_overrides_to_config([parsed[one] for one in job if one not in choices], config)
        try:
            check_job(config, master.hydra.job.config_name)
        except UserError as error:
            faults.append((job, str(error)))
    if faults:
        job, fault = faults[0]
        if len(jobs) == 1:
            raise UserError(fault)
        first = "" if len(faults) == 1 else "the first one "
        title = shlex.join(varied(job) or job)
        line = f"{len(faults):,} of {len(jobs):,} jobs cannot begin: {first}{title}: {fault}"
        if len(faults) == len(jobs):
            raise UserError(line)
        print(visible(without_secrets(f"{line}; the others go on")), file=sys.stderr, flush=True)


def without_hydra(config: "DictConfig") -> "DictConfig":
    """A copy of a composed configuration without Hydra's own node."""
    from omegaconf import OmegaConf

    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


def check_job(config: "DictConfig", entry: str) -> None:
    """Raise UserError for settings of train.py or predict.py, as `entry` says, that do not fit; no part is built."""
    from nexttoken.build import checked, plain
    from nexttoken.data.checked_settings import check_settings
    from nexttoken.data.packages import require_packages
    from nexttoken.data.targets import check_targets
    from nexttoken.settings import PredictSettings

    values = plain(config)
    if entry == "train":
        require_packages(values, is_trained=True)
        checked(values)
        return
    check_settings(PredictSettings, values)
    check_targets(values)
    require_packages(values)
