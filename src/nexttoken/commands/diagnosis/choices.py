"""The choices of train.py on this machine, for its default task and for QLoRA on nine billion weights, with reasons."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nexttoken.commands.diagnosis.finding import Finding
from nexttoken.commands.entry import compose_settings
from nexttoken.settings import AUTO

if TYPE_CHECKING:
    from nexttoken.models.gpus import Gpu
    from nexttoken.models.load import ModelSpec

TYPICAL = {"train.py": (), "9B QLoRA": ("experiment=lmsys_gemma2_9b_qlora",)}
ADAMW_BYTES = 16  # of a trained weight: itself, its gradient and two states in float32
SCALES = 0.032  # of a quantised weight's bits: the scales, in double quantisation
HALF_BYTES = 2  # of a weight in 16 bit
LISTED = re.compile(r"Weights: ([\d.]+) GB in 16\s+(?:# )?bit, ([\d.]+) GB in 4\s+(?:# )?bit")  # in a model's file


def check_choices(gpus: "Sequence[Gpu]", free: int) -> list[Finding]:
    """Device, precision, attention and batch of the two typical trainings, each with its reason."""
    if not Path("conf/train.yaml").is_file():
        return [Finding("train.py", "conf/ is not here", "run the doctor where train.py and conf/ are")]
    return [_choice(topic, overrides, gpus, free) for topic, overrides in TYPICAL.items()]


def _choice(topic: str, overrides: Sequence[str], gpus: "Sequence[Gpu]", free: int) -> Finding:
    from nexttoken.engine.memory_plan.table import in_units
    from nexttoken.models.load import resolve
    from nexttoken.models.published_shapes import published_config

    settings = compose_settings(overrides)
    name = settings.model.name_or_path
    spec = resolve(settings, None if name is None else published_config(name))
    weights, plan = weight_bytes(spec), " ".join(["python -m nexttoken plan", *overrides])
    text = (
        f"{spec}, because {_reason(spec, gpus)}; attention: {_attention(gpus)}; {_batch(settings.batch_tokens)};"
        f" {_devices(len(gpus))}; about {in_units(weights)} for weights, of {in_units(free)} free"
    )
    if weights > free:
        return Finding(topic, text, f"a smaller model or a larger GPU: {plan} device=l4")
    if name is not None and not gpus:
        return Finding(topic, text, f"train so large a model on a GPU; to plan for one: {plan} device=l4")
    return Finding(topic, f"{text}; with all else: {plan}")


def weight_bytes(spec: "ModelSpec") -> int:
    """About the bytes of a model's weights as the run holds them, with AdamW's states where all are trained."""
    from nexttoken.models.load import estimate_parameters

    text = spec.config.get_text_config()
    number, embedding = estimate_parameters(spec.config), text.vocab_size * text.hidden_size
    if spec.settings.quantization:
        in_bits = (number - embedding) * spec.settings.quantization.bits / 8 * (1 + SCALES)
        return int(in_bits) + embedding * spec.dtype.itemsize
    is_trained = spec.settings.trainer.max_epochs > 0 and spec.settings.adapter is None
    return number * (ADAMW_BYTES if is_trained else spec.dtype.itemsize)


def _reason(spec: "ModelSpec", gpus: "Sequence[Gpu]") -> str:
    if not gpus:
        return "there is no GPU, and a processor computes in float32 unless a trial shows that bfloat16 is faster"
    if spec.precision.startswith("bf16"):
        return "the GPU has bfloat16"
    if spec.precision.startswith("16"):
        return "the GPU has no bfloat16 (compute capability below 8.0)"
    return f"{spec.config.model_type} exceeds float16 and the GPU has no bfloat16"


def _attention(gpus: "Sequence[Gpu]") -> str:
    if not gpus:
        return "torch's fused kernel row by row"
    return "flash, all rows packed" if gpus[0].capability >= (8, 0) else "memory-efficient, row by row"


def _batch(tokens: int) -> str:
    return "batch_tokens chosen by the memory" if tokens == AUTO else f"batch_tokens={tokens} as configured"


def _devices(number: int) -> str:
    if number > 1:
        return f"1 of {number} GPUs (trainer.devices={number} uses all)"
    return "1 process"


def check_models(free: int) -> list[Finding]:
    """The models of conf/model whose weights fit into `free` bytes; `plan` counts the rest."""
    sizes = {
        path.stem: found
        for path in Path("conf/model").glob("*.yaml")
        if (found := LISTED.search(path.read_text("utf-8")))
    }
    if not sizes:
        return []
    half, four = ({name: float(found[place]) * 1e9 for name, found in sizes.items()} for place in (1, 2))
    whole = {name: size * ADAMW_BYTES / HALF_BYTES for name, size in half.items()}
    uses = {"prediction and LoRA, 16 bit": half, "prediction and QLoRA, 4 bit": four, "all weights, AdamW": whole}
    counts = [f"{use}: {_fitting(bytes_of, free)}" for use, bytes_of in uses.items()]
    text = f"whose weights fit, of {len(sizes)}: {'; '.join(counts)}"
    return [Finding("models", f"{text}; batches take more: python -m nexttoken plan model=<one of them>")]


def _fitting(sizes: dict[str, float], free: int) -> str:
    """`12, the largest gemma2_9b`: the number of models that fit."""
    fitting = {name: size for name, size in sizes.items() if size < free}
    return f"{len(fitting)}, the largest {max(fitting, key=lambda name: fitting[name])}" if fitting else "none"
