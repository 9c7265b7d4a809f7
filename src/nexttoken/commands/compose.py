"""A configuration composed as the entries do it, for the small commands that take their overrides."""

from collections.abc import Sequence
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from nexttoken.commands.entry import one_line
from nexttoken.errors import UserError


def compose(entry: str, overrides: Sequence[str]) -> DictConfig:
    """Return conf/<entry>.yaml of the current directory with `overrides`, as `python <entry>.py <overrides>` has it.

    Raises UserError where there is no such file, and for every override that does not fit, with the nearest key.
    """
    conf = Path("conf").resolve()
    if not (conf / f"{entry}.yaml").is_file():
        raise UserError(f"{conf / entry}.yaml is not there; run the command where {entry}.py and conf/ are")
    try:
        with initialize_config_dir(str(conf), version_base="1.3"):
            return hydra_compose(entry, list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(one_line(error, conf.parent / f"{entry}.py")) from None
