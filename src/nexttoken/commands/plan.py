"""Show the memory that a training run needs, and the memory that is free, without loading weights.

python -m nexttoken plan model=llama3_8b adapter=lora quantization=nf4
python -m nexttoken plan model=llama3_8b adapter=lora batch_tokens=16384 fit.gradient_checkpointing=true

python -m nexttoken plan experiment=lmsys_gemma2_9b_qlora device=t4
python -m nexttoken plan model=gemma2_9b adapter=lora quantization=nf4 device=t4x2

Arguments:
  device=...       a device that this machine does not have: t4, t4x2, v100, l4, rtx4090, a100_40gb, a100, h100 or
                   rtx_pro_6000 (default: this)
  key=value ...    any setting of train.py

The shipped models are planned without the hub. Of any other hub model the configuration alone is downloaded.
Several GPUs each hold the whole model.
"""

from collections.abc import Sequence

from nexttoken.commands.arguments import Arguments
from nexttoken.commands.entry import compose_settings
from nexttoken.models.device_sheets import THIS, DeviceName, find_sheet


class PlanArguments(Arguments):
    device: DeviceName = THIS
    overrides: tuple[str, ...] = ()


def main(arguments: Sequence[str]) -> None:
    given = PlanArguments.parse(arguments)
    settings = compose_settings(given.overrides)
    from nexttoken.data.targets import declared
    from nexttoken.engine.memory_plan.auto_tokens import choose_max_tokens, with_batch_tokens
    from nexttoken.engine.memory_plan.make import make_plan
    from nexttoken.models.fold_weights import without_training
    from nexttoken.models.load import resolve
    from nexttoken.models.published_shapes import config_for_plan
    from nexttoken.runs.starting_run import with_starting_weights
    from nexttoken.settings import AUTO

    settings = with_starting_weights(settings)
    if "states" in declared(settings.head, "offers"):  # a frozen model is read
        settings = without_training(settings)
    sheet = find_sheet(given.device)
    config = config_for_plan(settings.model, settings.max_tokens if settings.max_tokens != AUTO else 0)
    spec = resolve(settings, config, sheet=sheet)
    if settings.max_tokens == AUTO:
        budget = choose_max_tokens(spec)  # by the device alone: the rows are not read here
        print(budget)
        spec = spec.change(max_tokens=budget.number)
    print(make_plan(with_batch_tokens(spec)).table())
    if sheet and sheet.gpus > 1:
        print(f"{sheet}: one process for each GPU, each with the whole model")
