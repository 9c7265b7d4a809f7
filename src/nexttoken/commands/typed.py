"""The overrides of a sweep as they were typed: which tell its jobs apart, and their order."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nexttoken.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from nexttoken.runs.sweep_job import SweepJob


def job_of_sweep(cfg: "DictConfig") -> "SweepJob | None":
    """The place of a command in the sweep that it is a job of; None for a command of its own."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from nexttoken.runs.sweep_job import SweepJob

    config = HydraConfig.get()
    if config.mode != RunMode.MULTIRUN:
        return None
    has_own_name = "name" in map(key_of, varied(config.overrides.task))
    own_process = (cfg.get("sweep") or {}).get("own_process")
    if own_process not in (None, True, False):
        raise UserError(f"sweep.own_process={own_process!r}: expected true, false or null")
    return SweepJob(own_process, config.runtime.choices["hydra/launcher"] != "basic", has_own_name)


def name_job(cfg: "DictConfig") -> "DictConfig":
    """The configuration of a job: in a sweep, a given name is followed by the settings in which the jobs differ."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from nexttoken.data.run_names import name_in_sweep

    if cfg.name and HydraConfig.get().mode == RunMode.MULTIRUN:
        cfg.name = name_in_sweep(cfg.name, in_typed_order(varied(HydraConfig.get().overrides.task)))
    return cfg


def given_name(overrides: Sequence[str]) -> str | None:
    """The run's name that the overrides of a job ask for; None where they give none."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from nexttoken.data.run_names import name_in_sweep

    given = [one for one in OverridesParser.create().parse_overrides([*overrides]) if one.get_key_element() == "name"]
    if not given or not (name := given[-1].value()):
        return None
    return name_in_sweep(str(name), in_typed_order(varied(overrides)))


def varied(overrides: Sequence[str]) -> list[str]:
    """The overrides in which the jobs of a sweep differ: typed with several values, or from a sweep's file."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    typed = OverridesParser.create().parse_overrides([one for one in sys.argv[1:] if is_override(one)])
    fixed = {f"{o.get_key_element()}={o.get_value_element_as_str()}" for o in typed if not o.is_sweep_override()}
    return [one for one in overrides if one not in fixed]


def in_typed_order(overrides: Sequence[str]) -> list[str]:
    """A job's overrides in the order of the command line; those of a sweep's file come last."""
    typed = [key_of(argument) for argument in sys.argv[1:]]
    places = [typed.index(key) if (key := key_of(one)) in typed else len(typed) for one in overrides]
    return [override for _, override in sorted(zip(places, overrides, strict=True), key=lambda pair: pair[0])]


def is_override(argument: str) -> bool:
    return argument[0] == "~" or ("=" in argument and argument[0] != "-")


def key_of(override: str) -> str:
    """The key or group that an override such as `+fit.ema=0.9` sets."""
    return override.lstrip("+~").partition("=")[0]
