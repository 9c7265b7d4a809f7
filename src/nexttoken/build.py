"""From a composed configuration to the parts it names: the only module, beside the entries, that knows Hydra."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from nexttoken.checks import check_settings
from nexttoken.data.files import hash_text
from nexttoken.data.folds import GroupedStratified
from nexttoken.errors import UserError
from nexttoken.settings import INCIDENTAL, Settings
from nexttoken.types import OpenTask, Task

if TYPE_CHECKING:
    from nexttoken.inference import Inference
    from nexttoken.prompts import Prompt
    from nexttoken.transforms import Transform

LONGEST_NAME = 120  # file systems take 255 bytes


@dataclass(frozen=True)
class Parts:
    """What a configuration names, built: none of it has imported torch yet."""

    settings: Settings
    task: Task | OpenTask
    prompt: "Prompt"
    split: GroupedStratified
    transforms: "dict[str, Transform]"
    train_transforms: "dict[str, Transform]"
    inference: "Inference"


def prepare(cfg: DictConfig, overrides: Sequence[str]) -> tuple[Parts, dict[str, Any]]:
    """Check the configuration, name the run, build its parts; return them with the configuration to save."""
    config = plain(cfg)
    config["name"] = config["name"] or default_name(config["input_dir"], overrides)
    return build(config), config


def plain(cfg: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


def build(config: Mapping[str, Any]) -> Parts:
    """Instantiate the parts of a checked configuration. Raises UserError for anything that does not fit together."""
    settings = check_settings(Settings, dict(config))
    names = ("task", "prompt", "split", "transforms", "train_transforms", "inference")
    parts = Parts(settings, **{name: make(getattr(settings, name), name) for name in names})
    return replace(parts, prompt=parts.prompt.for_classes(parts.task.classes))


def make(node: dict[str, Any], name: str) -> Any:
    """Build a `_target_` node, or each node of a mapping of them; a key that its class does not know is one line."""
    try:
        return instantiate(node, _convert_="all")
    except InstantiationException as error:
        reason = error.__cause__ or error
        raise (reason if isinstance(reason, UserError) else UserError(f"{name}: {reason}")) from None


def default_name(input_dir: str, overrides: Sequence[str]) -> str:
    """`arena-mini_stories260k`: the data's folder and what the command line changed, so that runs do not collide.

    An experiment's file name stands for itself; a group choice or a path shows its last part, other keys `key-value`.
    """
    words = [o.partition("=")[2] for o in overrides if o.startswith("experiment=")] or [Path(input_dir).resolve().name]
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if key in (*INCIDENTAL, "task", "input_dir", "experiment", "debug") or key.split(".")[0] in ("hydra", "logger"):
            continue
        is_choice = "." not in key and not value.replace(".", "").isdigit()
        last = value.rstrip("/").rpartition("/")[2]
        words.append(last if is_choice or "/" in value else f"{key.rpartition('.')[2]}-{last}")
    words += [f"debug-{o.partition('=')[2]}" for o in overrides if o.startswith("debug=")]
    name = re.sub(r"[^\w.-]+", "-", "_".join(words))  # nothing that would need quotes in run=<name>
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}-{hash_text(name)[:8]}"
