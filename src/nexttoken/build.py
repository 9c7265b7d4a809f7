"""From a composed configuration to the parts it names: the only module, beside the entries, that knows Hydra."""

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from nexttoken.data.files import hash_text
from nexttoken.data.folds import GroupedStratified
from nexttoken.errors import UserError
from nexttoken.settings import INCIDENTAL, Settings, check_settings
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
    for applies, message in IMPOSSIBLE:
        if applies(settings):
            raise UserError(message)
    names = ("task", "prompt", "split", "transforms", "train_transforms", "inference")
    parts = {name: make(getattr(settings, name), name) for name in names}
    refuse_unfit(parts, settings)
    return Parts(settings, **parts | {"prompt": parts["prompt"].for_classes(parts["task"].classes)})


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


# What a part may need of the others, and the fix where none of them offers it.
FIXES = {
    "labels": "the task's answers are open texts; use head=text, prompt=instruct or dialogue, inference=once,"
    " demonstrations or replies, and train_transforms=none",
    "texts": "the task's answers are labels; use head=label with a prompt that has labels and inference=once or"
    " few_shot, or task=instruct or dialogue with their prompts",
    "pairs": "the task's examples are not pairs of answers; for questions with options use train_transforms=options and"
    " inference=rotated, for others train_transforms=none and inference=once",
    "options": "the task's examples have no options; use prompt=instruction or conversation,"
    " train_transforms=both_orders, inference=once or swap_averaged, or a task of questions such as task=quiz",
    "dialogues": "the task's examples are no dialogues; use prompt=instruct, inference=once, transforms=none and"
    " train_transforms=none, or task=dialogue",
    "passages": "retriever=none finds none; add retriever=bm25",
    "shown options": "this prompt shows none; use prompt=quiz, quiz_letters or quiz_ja",
    "shown utterances": "this prompt shows none; use prompt=dialogue or dialogue_chat",
}


def refuse_unfit(parts: Mapping[str, Any], settings: Settings) -> None:
    """Raise UserError with the fix for the first part that needs what no other part offers.

    A class says so itself: `needs` and `offers` are sets of the names in FIXES.
    """
    offered = declared(settings.head, "offers") | declared(settings.retriever, "offers")
    offered = offered.union(*(getattr(parts[name], "offers", ()) for name in ("task", "prompt")))
    needs = [("this head", declared(settings.head, "needs"))]
    for name, part in parts.items():
        for one in part.values() if isinstance(part, dict) else _chain(part):
            needs.append((f"{name}={type(one).__name__}", getattr(one, "needs", frozenset())))
    for who, needed in needs:
        if missing := sorted(needed - offered, key=list(FIXES).index):
            raise UserError(f"{who} needs {missing[0]}, and {FIXES[missing[0]]}")
    if any(getattr(inner, "is_outermost", False) for inner in _chain(parts["inference"])[1:]):
        raise UserError(
            "a gate inside another way of inference would gate each of its parts; put it outside:"
            " inference=gated_retrieval inference.ask._target_=..."
        )


def declared(node: Mapping[str, Any], name: str) -> frozenset[str]:
    """The set of that name on the class of a `_target_` node, read from its source: importing a head imports torch."""
    module, _, kind = str(node.get("_target_", "")).rpartition(".")
    spec = find_spec(module) if module.startswith("nexttoken.") else None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8")) if spec and spec.origin else ast.Module([], [])
    bodies = [node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == kind]
    for statement in chain(*bodies):
        if isinstance(statement, ast.Assign | ast.AnnAssign) and isinstance(statement.value, ast.Call):
            target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
            if isinstance(target, ast.Name) and target.id == name:
                return frozenset(*map(ast.literal_eval, statement.value.args))
    return frozenset()


def _chain(part: Any) -> list[Any]:
    """A part, and the parts inside it, from the outside: a way of inference may wrap another one as its `ask`."""
    return [part, *_chain(part.ask)] if getattr(part, "ask", None) is not None else [part]


def _trains(s: Settings) -> bool:
    return s.trainer.max_epochs > 0


def _is_new_layer(s: Settings) -> bool:
    return "vocabulary" not in declared(s.head, "offers")


def _writes_texts(s: Settings) -> bool:
    return "texts" in declared(s.head, "needs")


def _is_sharded(s: Settings) -> bool:
    return s.trainer.strategy == "fsdp"


IMPOSSIBLE: list[tuple[Callable[[Settings], bool], str]] = [
    (
        lambda s: s.generate_rows > 0 and s.trainer.devices > 1,
        "answers are written by one process: use generate_rows=0 with trainer.devices=2 or more, and predict.py on the"
        " finished run",
    ),
    (
        lambda s: s.generate_rows > 0 and s.generation.max_new_tokens >= s.max_tokens,
        "generation.max_new_tokens leaves nothing of max_tokens for a prompt; lower it, or raise max_tokens",
    ),
    (
        lambda s: s.generate_rows > 0 and not _writes_texts(s),
        "generate_rows is for open answers; the probabilities of labels are in oof.csv: use generate_rows=0",
    ),
    (
        lambda s: _writes_texts(s) and s.fit.text_epochs > 0,
        "fit.text_epochs learns a text before its labels, and open answers have none: use fit.text_epochs=0",
    ),
    (
        lambda s: s.adapter is not None and s.model.name_or_path is None,
        "adapter=lora needs a pretrained base, and model=scratch has random weights; give model=... or"
        " model.name_or_path=<hub name or folder>",
    ),
    (
        lambda s: s.quantization is not None and s.model.name_or_path is None,
        "quantization needs a pretrained model, and model=scratch is built in float32; give model=... or"
        " model.name_or_path=<hub name or folder>",
    ),
    (
        lambda s: s.quantization is not None and s.adapter is None and _trains(s),
        "quantised weights cannot be trained; add adapter=lora (QLoRA), or trainer.max_epochs=0 to ask them as is",
    ),
    (
        lambda s: (
            s.adapter is not None and s.adapter.init == "loftq" and (not s.quantization or s.quantization.bits != 4)
        ),
        "adapter.init=loftq starts from what 4-bit quantisation took away; add quantization=nf4 or use another init",
    ),
    (
        lambda s: s.adapter is not None and s.adapter.init == "loftq" and s.adapter.dora,
        "adapter.init=loftq changes what adapter.dora=true measured its magnitudes on; use one of them",
    ),
    (
        lambda s: s.adapter is not None and s.adapter.init == "orthogonal" and s.quantization is not None,
        "adapter.init=orthogonal takes its dtype from the weights, which quantised ones cannot give; use default,"
        " gaussian or loftq",
    ),
    (
        lambda s: s.adapter is not None and s.adapter.dora and s.quantization is not None and s.quantization.bits == 8,
        "adapter.dora=true fails on 8-bit weights (peft 0.21, bitsandbytes 0.50); use quantization=nf4 or dora=false",
    ),
    (
        lambda s: _is_new_layer(s) and s.fit.text_epochs > 0,
        "head=classification has no output for words, so fit.text_epochs cannot be learnt; use fit.text_epochs=0",
    ),
    (
        lambda s: _is_new_layer(s) and not _trains(s),
        "head=classification is a new layer with random weights; it cannot answer with trainer.max_epochs=0",
    ),
    (
        lambda s: _is_sharded(s) and s.trainer.devices == 1,
        "trainer.strategy=fsdp shares a model out over several devices; add trainer.devices=2 or more",
    ),
    (
        lambda s: _is_sharded(s) and s.quantization is not None,
        "trainer.strategy=fsdp cannot shard the packed weights of bitsandbytes; use trainer.strategy=ddp, or"
        " quantization=none",
    ),
    (
        lambda s: _is_sharded(s) and _is_new_layer(s),
        "trainer.strategy=fsdp shards models with their language-model head; use head=label or trainer.strategy=ddp",
    ),
    (
        lambda s: _is_sharded(s) and s.fit.optimizer != "adamw",
        "trainer.strategy=fsdp shards the optimizer's states itself; use fit.optimizer=adamw",
    ),
    (
        lambda s: _is_sharded(s) and s.trainer.precision == "16-mixed",
        "trainer.strategy=fsdp has no scaled float16; use trainer.precision=bf16-mixed or 32-true",
    ),
]
