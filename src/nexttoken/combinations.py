"""Settings that are right one by one and cannot work together: refused before anything is read or loaded."""

from collections.abc import Callable, Mapping
from typing import Any

from nexttoken.errors import UserError
from nexttoken.settings import Settings

OF_LABELS = ("FewShot", "SwapAveraged", "RotationAveraged", "ConfidenceGated", "WithPassages")
REORDERED = ("BothOrders", "ShuffleOptions")
STRATEGIES = ("auto", "ddp", "fsdp")


def refuse_impossible(settings: Settings) -> None:
    """Raise UserError with the fix for the first combination that cannot work."""
    for applies, message in IMPOSSIBLE:
        if applies(settings):
            raise UserError(message)


def _trains(s: Settings) -> bool:
    return s.trainer.max_epochs > 0


def _is_classification(s: Settings) -> bool:
    return str(s.head.get("_target_", "")).endswith(".Classification")


def _is_sharded(s: Settings) -> bool:
    return s.trainer.strategy == "fsdp"


def _ways(node: Any) -> list[str]:
    """The names of a way of asking and of those inside it, from the outside."""
    own = node if isinstance(node, Mapping) else {}
    return [str(own["_target_"]).rpartition(".")[2], *_ways(own.get("ask"))] if "_target_" in own else []


def _asks(s: Settings, *names: str) -> bool:
    return any(name in _ways(s.inference) for name in names)


def _trains_with(s: Settings, name: str) -> bool:
    return any(str(node.get("_target_", "")).endswith(f".{name}") for node in s.train_transforms.values())


def _has_options(s: Settings) -> bool:
    return bool(s.prompt.get("options"))


def _is_quiz(s: Settings) -> bool:
    return str(s.task.get("_target_", "")).endswith(".Quiz")


def _writes(s: Settings) -> bool:
    return str(s.head.get("_target_", "")).endswith(".AnswerText")


def _is_dialogue(s: Settings) -> bool:
    return str(s.task.get("_target_", "")).endswith(".Dialogue")


def _cuts_dialogues(s: Settings) -> bool:
    """Anything that walks over a dialogue's utterances."""
    has_persona = any(str(node.get("_target_", "")).endswith(".Persona") for node in s.transforms.values())
    return has_persona or _asks(s, "Replies") or _trains_with(s, "Windows") or bool(s.prompt.get("dialogue"))


IMPOSSIBLE: list[tuple[Callable[[Settings], bool], str]] = [
    (
        lambda s: _writes(s) and bool(s.prompt.get("labels")),
        "head=text learns open answers, and this prompt has labels; use prompt=instruct or dialogue (with task=instruct"
        " or dialogue), or head=label",
    ),
    (
        lambda s: not _writes(s) and not s.prompt.get("labels"),
        "this prompt has no labels to read, so its answers are open: use head=text with task=instruct or dialogue, or a"
        " prompt with labels",
    ),
    (
        lambda s: not _writes(s) and (_asks(s, "Demonstrations", "Replies") or _trains_with(s, "Windows")),
        "demonstrations found by a retriever, replies and windows are for open answers; use inference=few_shot or once,"
        " or task=instruct or dialogue",
    ),
    (
        lambda s: _writes(s) and (_asks(s, *OF_LABELS) or any(_trains_with(s, name) for name in REORDERED)),
        "orders, gates and few_shot are for labels, and the task's answers are open; use inference=once, demonstrations"
        " or replies, and train_transforms=none",
    ),
    (
        lambda s: not _is_dialogue(s) and _cuts_dialogues(s),
        "prompt=dialogue, inference=replies, windows and personas are for dialogues, which the task's rows are not; use"
        " prompt=instruct, inference=once and transforms=none train_transforms=none, or task=dialogue",
    ),
    (
        lambda s: _is_dialogue(s) and _writes(s) and not s.prompt.get("dialogue"),
        "the task's rows are dialogues, and this prompt shows no utterances; use prompt=dialogue or dialogue_chat",
    ),
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
        lambda s: s.generate_rows > 0 and not _writes(s),
        "generate_rows is for open answers; the probabilities of labels are in oof.csv: use generate_rows=0",
    ),
    (
        lambda s: _writes(s) and s.fit.text_epochs > 0,
        "fit.text_epochs learns a text before its labels, and open answers have none: use fit.text_epochs=0",
    ),
    (
        lambda s: _is_quiz(s) and not _has_options(s),
        "the task's questions have options, and this prompt shows none; use prompt=quiz, quiz_letters or quiz_ja",
    ),
    (
        lambda s: not _is_quiz(s) and _has_options(s),
        "this prompt shows options, and the task's rows have none; use prompt=instruction or conversation",
    ),
    (
        lambda s: not _has_options(s) and _asks(s, "ConfidenceGated", "WithPassages"),
        "passages are searched for by a question's text, which the task's rows do not have; use a task of questions",
    ),
    (
        lambda s: _has_options(s) and (_asks(s, "SwapAveraged") or _trains_with(s, "BothOrders")),
        "both orders are for pairs of answers, and this prompt has options; use train_transforms=options and"
        " inference=rotated",
    ),
    (
        lambda s: not _has_options(s) and (_asks(s, "RotationAveraged") or _trains_with(s, "ShuffleOptions")),
        "this prompt has no options to put in another order; use train_transforms=both_orders and"
        " inference=swap_averaged, or a task of questions with options",
    ),
    (
        lambda s: "ConfidenceGated" in _ways(s.inference)[1:],
        "a gate inside another way of asking would gate each of its parts; put it outside: inference=gated_retrieval"
        " inference.ask._target_=...",
    ),
    (
        lambda s: (
            _asks(s, "ConfidenceGated", "WithPassages") and str(s.retriever.get("_target_", "")).endswith(".Nothing")
        ),
        "this inference searches for passages, and retriever=none finds nothing; add retriever=bm25, say",
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
        lambda s: _is_classification(s) and s.fit.text_epochs > 0,
        "head=classification has no output for words, so fit.text_epochs cannot be learnt; use fit.text_epochs=0",
    ),
    (
        lambda s: _is_classification(s) and not _trains(s),
        "head=classification is a new layer with random weights; it cannot answer with trainer.max_epochs=0",
    ),
    (
        lambda s: s.trainer.strategy.startswith("deepspeed"),
        "trainer.strategy=deepspeed is not offered (ZeRO-3 cannot shard 4-bit weights at all); fsdp shards the weights,"
        " gradients and optimizer states, ddp copies them",
    ),
    (
        lambda s: s.trainer.strategy not in STRATEGIES,
        f"trainer.strategy has to be one of {', '.join(STRATEGIES)}: one process a device, started by this program",
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
        lambda s: _is_sharded(s) and _is_classification(s),
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
