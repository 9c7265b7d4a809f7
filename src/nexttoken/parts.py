"""From a composed configuration to the parts it names: the only module, beside the entries, that knows Hydra."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from nexttoken.checks import check_settings
from nexttoken.data.folds import GroupedStratified
from nexttoken.errors import UserError
from nexttoken.inference import Inference
from nexttoken.prompts.prompt import Prompt
from nexttoken.runs.answer_set import AnswerSet
from nexttoken.runs.folder import default_name
from nexttoken.runs.label_answers import Labels
from nexttoken.runs.text_answers import Texts
from nexttoken.settings import Settings
from nexttoken.transforms import Transform
from nexttoken.types import OpenTask, Task


@dataclass(frozen=True)
class Parts:
    """What a configuration names, built: none of it has imported torch yet."""

    settings: Settings
    task: Task | OpenTask
    prompt: Prompt
    split: GroupedStratified
    transforms: dict[str, Transform]
    train_transforms: dict[str, Transform]
    inference: Inference

    @property
    def answers(self) -> AnswerSet:
        """What the task's answers are: its classes, or, where it has none, texts."""
        return Labels() if self.task.classes else Texts()


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
