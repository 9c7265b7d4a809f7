"""A base model quantised once and saved, so that no run has to.

python -m nexttoken quantize model=gemma2_27b quantization=nf4 out=models/gemma2_27b_nf4     overrides as for train.py
python train.py fold=0 model=gemma2_27b model.name_or_path=models/gemma2_27b_nf4 quantization=nf4 adapter=lora
python predict.py run=output/lmsys/<name> base=models/gemma2_27b_nf4

The copy computes what quantising on the fly does; adapters of the model fit the copy, and the other way round.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nexttoken.errors import UserError


@dataclass(frozen=True)
class Arguments:
    """The overrides for train.yaml, and the folder to write."""

    overrides: tuple[str, ...]
    out: Path

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> "Arguments":
        """Raises UserError without an `out`, and for one that exists: weights are never written over."""
        outs = [argument.removeprefix("out=") for argument in arguments if argument.startswith("out=")]
        if len(outs) != 1 or not outs[0]:
            raise UserError("the folder to write is missing; add out=models/<name>")
        out = Path(outs[0]).expanduser()
        if out.exists():
            raise UserError(f"{out} exists already; choose another out=... or remove it")
        return cls(tuple(argument for argument in arguments if not argument.startswith("out=")), out)


def main(arguments: Sequence[str]) -> None:
    from nexttoken.build import plain
    from nexttoken.checks import check_settings
    from nexttoken.commands.compose import compose
    from nexttoken.settings import Settings

    given = Arguments.parse(arguments)
    asked_as_is = ("trainer.max_epochs=0", *given.overrides)  # nothing is trained here, so no adapter is needed
    settings = check_settings(Settings, plain(compose("train", asked_as_is)))
    if settings.quantization is None:
        raise UserError("nothing to quantise by; add quantization=nf4 or quantization=int8")
    given.out.parent.mkdir(parents=True, exist_ok=True)  # before hours of work, not after
    from nexttoken.models.save_quantized import save_quantized

    num_weights = save_quantized(settings, given.out)
    size = sum(path.stat().st_size for path in given.out.iterdir())
    print(
        f"wrote {given.out}: {num_weights:,} weights in {size / 1e9:.3g} GB; use it by model.name_or_path={given.out}"
    )
