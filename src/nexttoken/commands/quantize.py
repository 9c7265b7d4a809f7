"""Quantise a base model once and save it, so that no run has to.

python -m nexttoken quantize model=gemma2_27b quantization=nf4 out=models/gemma2_27b_nf4
python train.py fold=0 model=gemma2_27b model.name_or_path=models/gemma2_27b_nf4 quantization=nf4 adapter=lora
python predict.py run=output/lmsys/<name> base=models/gemma2_27b_nf4

Arguments:
  out=...             the new folder of the quantised model
  quantization=...    nf4 or int8
  key=value ...       any other setting of train.py, such as model=...

The copy gives the numbers that quantising at the start of a run gives; adapters fit the model and the copy alike.
"""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from nexttoken.commands.arguments import Arguments, NewPath
from nexttoken.commands.entry import compose
from nexttoken.data.whole_files import make_folder
from nexttoken.errors import UserError


class QuantizeArguments(Arguments):
    out: Annotated[NewPath, Field(examples=["models/<name>"])]
    overrides: tuple[str, ...] = ()


def main(arguments: Sequence[str]) -> None:
    given = QuantizeArguments.parse(arguments)
    from nexttoken.build import build, plain

    overrides = ("trainer.max_epochs=0", *given.overrides)  # nothing is trained here, so no adapter is needed
    settings = build(plain(compose("train", overrides))).settings
    if settings.quantization is None:
        raise UserError("nothing to quantise by; add quantization=nf4 or quantization=int8")
    make_folder(given.out.parent)  # before hours of work, not after
    from nexttoken.engine.memory_plan.table import in_units
    from nexttoken.models.saved import save_quantized

    num_weights = save_quantized(settings, given.out)
    size = in_units(sum(path.stat().st_size for path in given.out.iterdir()))
    print(f"wrote {given.out}: {num_weights:,} weights in {size}; use it by model.name_or_path={given.out}")
