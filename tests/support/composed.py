"""Shipped configurations, composed as the entries compose them."""

from copy import deepcopy
from functools import cache
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from nexttoken.build import plain
from nexttoken.data.checked_settings import check_settings
from nexttoken.settings import Settings

CONF = Path(__file__).resolve().parents[2] / "conf"
GROUPS = {path.name for path in CONF.iterdir() if path.is_dir()}


@cache
def _choose(name: str, *choices: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, [*choices])


def config_of(name: str, *overrides: str) -> DictConfig:
    """The configuration as Hydra composes it. Groups are composed once; Hydra then sets the values."""
    choices = [one for one in overrides if one.lstrip("+~").partition("=")[0].partition("@")[0] in GROUPS]
    config = deepcopy(_choose(name, *choices))
    values = OverridesParser.create().parse_overrides([one for one in overrides if one not in choices])
    ConfigLoaderImpl._apply_overrides_to_config(values, config)
    return config


def composed(*overrides: str, name: str = "train") -> dict:
    return plain(config_of(name, *overrides))


def settings(*overrides: str) -> Settings:
    return check_settings(Settings, composed(*overrides) | {"name": "x"})
