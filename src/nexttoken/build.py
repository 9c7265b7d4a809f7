"""Builds the parts that a composed configuration names, and refuses those that do not fit together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import GrammarParseError, InterpolationResolutionError

from nexttoken.data.checked_settings import check_settings
from nexttoken.data.contradictions import contradictions
from nexttoken.data.folds import GroupedStratified
from nexttoken.data.packages import require_packages
from nexttoken.data.run_names import default_name
from nexttoken.data.secrets import refuse_secrets
from nexttoken.data.targets import check_targets, declared, make, refuse_unasked_code
from nexttoken.data.typed_texts import with_line_breaks
from nexttoken.errors import UserError, file_name
from nexttoken.settings import Settings
from nexttoken.types import OpenTask, Task

if TYPE_CHECKING:
    from nexttoken.inference import Inference
    from nexttoken.prompts import Prompt
    from nexttoken.transforms import Transform


def by_weights(scratch: Any, pretrained: Any, adapter: Any, *, _root_: Mapping[str, Any]) -> Any:
    """The value for what is trained: a model from scratch, all pretrained weights, or an adapter beside them."""
    full = pretrained if _root_["model"]["name_or_path"] or _root_["model"].get("from_run") else scratch
    return adapter if _root_["adapter"] else full


def alpha_of(learning_rate: float) -> int:
    """LoRA's alpha between those where published runs were best, interpolated on logarithmic axes."""
    rates, alphas = np.log(np.array([[2e-5, 6e-5, 2e-4], [192, 64, 4]]))
    return round(np.exp(np.interp(np.log(learning_rate), rates, alphas)))


OmegaConf.register_new_resolver("by_weights", by_weights, replace=True)
OmegaConf.register_new_resolver("alpha_of", alpha_of, replace=True)


@dataclass(frozen=True)
class Parts:
    """The parts of a configuration; building them does not import torch."""

    settings: Settings
    task: Task | OpenTask
    prompt: "Prompt"
    split: GroupedStratified
    transforms: "dict[str, Transform]"
    train_transforms: "dict[str, Transform]"
    inference: "Inference"

    @property
    def reads_states(self) -> bool:
        """True for a head on the states of a model that is not trained."""
        return "states" in declared(self.settings.head, "offers")

    def make_head(self) -> Any:
        """The head with what it takes from the task; building it imports torch."""
        return fit_to_task(make(self.settings.head, "head"), self.task)


def prepare(cfg: DictConfig, overrides: Sequence[str]) -> tuple[Parts, dict[str, Any]]:
    """Check the configuration, name the run, build its parts; return them with the configuration to save."""
    refuse_unasked_code(cfg, overrides)
    config = plain(cfg)
    config["name"] = config["name"] or default_name(str(config["input_dir"]), overrides)
    require_packages(config, is_trained=True)
    parts = build(config)
    config["task"] |= getattr(parts.task, "settled", {})
    return parts, config


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The configuration with its interpolations resolved and its typed line breaks, without how -m runs its jobs.

    Raises UserError for one that cannot be resolved, or has a secret.
    """
    try:
        config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    except (InterpolationResolutionError, GrammarParseError) as error:
        raise UserError(f"{str(error).splitlines()[0]}; a text with such characters is written as \\${{...}}") from None
    refuse_secrets(config)
    for key in ("sweep", "launcher"):
        config.pop(key, None)
    return with_line_breaks(config)


def build(config: Mapping[str, Any]) -> Parts:
    """Instantiate the parts of a checked configuration. Raises UserError for anything that does not fit together."""
    settings = checked(config)
    names = ("task", "prompt", "split", "transforms", "train_transforms", "inference")
    parts = {name: make(getattr(settings, name), name) for name in names}
    if settings.correction:
        parts["inference"] = make(settings.correction, "correction").around(parts["inference"], settings)
    file_name(parts["task"].name, "task.name")  # it becomes a folder
    refuse_unfit(parts, settings)
    fitted = {name: fit_to_task(part, parts["task"]) for name, part in parts.items()}
    return Parts(settings, **fitted | choose_answers(fitted, settings))


def checked(config: Mapping[str, Any]) -> Settings:
    """The settings of a configuration. Raises UserError for wrong ones, and for those that contradict each other."""
    settings = check_settings(Settings, dict(config))
    check_targets(config)
    require_packages(config)
    for message in contradictions(settings):
        raise UserError(message)
    return settings


def choose_answers(parts: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """The prompt with the labels that a model reads after it, and the inference over a row's candidates, if it has any.

    Candidates are read by their own texts, or by the labels in front of them in a prompt that lists them.
    """
    task, prompt, inference = (parts[name] for name in ("task", "prompt", "inference"))
    is_scored, given = "candidates" in declared(settings.head, "offers"), settings.candidates
    if "states" in declared(settings.head, "offers"):
        if not prompt.has_labels_for(len(task.classes)):
            return {"prompt": replace(prompt, labels=())}
        return {"prompt": prompt.for_classes(task.classes, getattr(task, "class_names", None))}
    is_limited = getattr(task, "labels_by", None) or given.get("number") is not None
    if not is_scored and not is_limited and prompt.has_labels_for(len(task.classes)):
        return {"prompt": prompt.for_classes(task.classes, getattr(task, "class_names", None))}
    candidates = make(given, "candidates")
    if is_scored:
        return {"prompt": replace(prompt, labels=()), "inference": candidates.around(inference, task, None)}
    prompt = prompt.for_places(len(task.classes))
    return {"prompt": prompt, "inference": candidates.around(inference, task, len(prompt.labels))}


def fit_to_task(part: Any, task: Task | OpenTask) -> Any:
    """The part, or each part of a mapping, with what it takes from the task, such as the swap of a pair.

    Raises UserError where the task does not say it.
    """
    if isinstance(part, dict):
        return {name: fit_to_task(one, task) for name, one in part.items()}
    return part.for_task(task) if hasattr(part, "for_task") else part


FIXES = {  # by what a part may need from the others: the error where none of them offers it
    "labels": "the task's answers are open texts; use head=text, prompt=instruct or dialogue, inference=once,"
    " demonstrations or replies, correction=none and train_transforms=none",
    "texts": "the task's answers are labels; use head=label, a prompt with labels and inference=once or few_shot, or"
    " task=instruct or dialogue with their prompts",
    "pairs": "the task's examples are not pairs of answers; for questions with options use train_transforms=options and"
    " inference=rotated, for others train_transforms=none and inference=once; for both transforms=none",
    "options": "the task's examples have no options; use prompt=instruction or conversation,"
    " train_transforms=both_orders, inference=once or swap_averaged, or a task with options such as task=quiz",
    "dialogues": "the task's examples are no dialogues; use prompt=instruct, inference=once, transforms=none and"
    " train_transforms=none, or task=dialogue",
    "solved examples": "the task's rows bring none; name their columns in task.examples, or use test_examples=false",
    "passages": "retriever=none finds none; add retriever=bm25",
    "shown options": "this prompt shows none; use prompt=quiz, quiz_letters or quiz_ja",
    "shown utterances": "this prompt shows none; use prompt=dialogue or dialogue_chat",
}


def refuse_unfit(parts: Mapping[str, Any], settings: Settings) -> None:
    """Raise UserError with the fix for the first part that needs something no other part offers.

    A class declares both in its sets `needs` and `offers`, of the names in FIXES.
    """
    offered = declared(settings.head, "offers") | declared(settings.retriever, "offers")
    offered = offered.union(*(getattr(parts[name], "offers", ()) for name in ("task", "prompt")))
    needs = [("this head", declared(settings.head, "needs"))]
    needs += [("test_examples=true", frozenset({"solved examples"}))] if settings.test_examples else []
    for name, part in parts.items():
        for one in part.values() if isinstance(part, dict) else _nested(part):
            needs.append((f"{name}={type(one).__name__}", getattr(one, "needs", frozenset())))
    for part_name, needed in needs:
        if missing := sorted(needed - offered, key=list(FIXES).index):
            raise UserError(f"{part_name} needs {missing[0]}, and {FIXES[missing[0]]}")
    if any(getattr(inner, "is_outermost", False) for inner in _nested(parts["inference"])[1:]):
        raise UserError(
            "a gate inside another way of inference would gate each of its parts; put it outside:"
            " inference=gated_retrieval inference.ask._target_=..."
        )


def _nested(part: Any) -> list[Any]:
    """A part and those inside it, outermost first: an inference may wrap another one as its `ask`."""
    return [part, *_nested(part.ask)] if getattr(part, "ask", None) is not None else [part]
