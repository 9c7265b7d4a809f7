"""Shipped configurations, composed as the entries compose them."""

from pathlib import Path

from hydra import compose, initialize_config_dir

from nexttoken.build import plain
from nexttoken.data.checked_settings import check_settings
from nexttoken.settings import Settings

CONF = Path(__file__).resolve().parents[2] / "conf"


def composed(*overrides: str, name: str = "train") -> dict:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return plain(compose(name, list(overrides)))


def settings(*overrides: str) -> Settings:
    return check_settings(Settings, composed(*overrides) | {"name": "x"})
