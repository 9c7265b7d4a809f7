"""Hydra's own settings, checked before Hydra acts on them: it builds its callbacks, logs and plugins from classes."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nexttoken.commands.broken_files import refusing_broken_files
from nexttoken.data.secrets import refuse_secrets
from nexttoken.data.targets import refuse_unasked_code
from nexttoken.errors import UserError

PLUGINS = ("hydra._internal.core_plugins.", "hydra_plugins.")  # packages that are installed to extend Hydra
NO_LOG = {"version": 1, "root": None, "disable_existing_loggers": False}  # Hydra's choice `none`
ENVIRONMENT = "hydra.job.env_set"


@contextmanager
def guarded_hydra(overrides: Sequence[str], conf: Path) -> Iterator[None]:
    """A context in which Hydra composes no configuration that would run code of its own choice: a UserError instead.

    So are broken files of `conf`.
    """
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from omegaconf import OmegaConf

    if any(one.lstrip("+").startswith("hydra.searchpath") and "pkg:" in one for one in overrides):
        raise UserError("hydra.searchpath with pkg:// is refused: it imports the package; give a folder, file://...")
    load = ConfigLoaderImpl.load_configuration

    def load_checked(self: Any, *given: Any, **options: Any) -> Any:
        with refusing_broken_files(conf):
            config = load(self, *given, **options)
        if (given[0] if given else options["config_name"]) is None:  # of --hydra-help, which runs nothing
            return config
        refuse_code(config.hydra, overrides)
        values: Any = OmegaConf.to_container(config)
        del values["hydra"]
        refuse_unasked_code(values, overrides)
        refuse_secrets(values)  # a sweep saves them before its jobs
        return config

    ConfigLoaderImpl.load_configuration = load_checked  # type: ignore[method-assign]
    try:
        yield
    finally:
        ConfigLoaderImpl.load_configuration = load  # type: ignore[method-assign]


def refuse_code(hydra: Any, overrides: Sequence[str]) -> None:
    """Raise UserError for a callback, a log, a plugin or a variable by which a configuration would run code.

    `hydra` is the node of that name in a composed configuration.
    """
    from omegaconf import OmegaConf

    if hydra.callbacks:
        raise UserError("hydra.callbacks is refused: a configuration names no code of its own; leave it out")
    for key in ("job_logging", "hydra_logging"):
        if OmegaConf.to_container(hydra[key]) != NO_LOG:
            raise UserError(f"hydra.{key} is refused: the log is the program's own; leave it out")
    for key in ("launcher", "sweeper"):
        node: Any = OmegaConf.to_container(hydra[key], resolve=True) if hydra[key] else {}
        if not str(node.get("_target_")).startswith(PLUGINS):
            raise UserError(f"hydra.{key}._target_={node.get('_target_')!r} is refused: expected a plugin of Hydra")
        if str(node["_target_"]).endswith(".BasicSweeper"):
            raise UserError("hydra/sweeper=basic is refused: it checks no job before the first; use nexttoken_grid")
        _refuse_nodes({name: value for name, value in node.items() if name != "_target_"}, f"hydra.{key}")
    is_asked = any(one.lstrip("+").startswith(ENVIRONMENT) for one in overrides)
    if hydra.job.env_set and not is_asked:
        raise UserError(f"a configuration file has {ENVIRONMENT}; set the variables in front of the command instead")


def _refuse_nodes(values: Any, path: str) -> None:
    """Raise UserError for a key such as _target_ or _args_, at any depth."""
    for key, value in values.items() if isinstance(values, Mapping) else enumerate(values):
        if str(key).startswith("_") and str(key).endswith("_"):
            raise UserError(f"{path}.{key} is refused: a plugin of Hydra takes values, not a class")
        if isinstance(value, Mapping | list):
            _refuse_nodes(value, f"{path}.{key}")
