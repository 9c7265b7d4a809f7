"""The memory that a run needs, against what is free; no weights are downloaded or loaded.

The arguments are those of train.py. A hub model's configuration is read; its weights are not.
    python -m nexttoken plan model=llama3_8b adapter=lora quantization=nf4
    python -m nexttoken plan model=llama3_8b adapter=lora batch_tokens=16384 fit.gradient_checkpointing=true
"""

from collections.abc import Sequence

from nexttoken.commands.arguments import Arguments
from nexttoken.commands.entry import compose


class PlanArguments(Arguments):
    overrides: tuple[str, ...] = ()


def main(arguments: Sequence[str]) -> None:
    from nexttoken.build import plain
    from nexttoken.settings import AUTO, Settings, check_settings

    settings = check_settings(Settings, plain(compose("train", PlanArguments.parse(arguments).overrides)))
    from nexttoken.engine.memory_plan.fill import with_batch_tokens
    from nexttoken.engine.memory_plan.make import make_plan
    from nexttoken.models.load import choose_device, load_architecture

    config, device = load_architecture(settings), choose_device()
    if settings.max_tokens == AUTO:
        from nexttoken.engine.memory_plan.longest import choose_budget

        budget = choose_budget(settings, config, device)  # by the device alone: the rows are not read here
        print(budget)
        settings = settings.model_copy(update={"max_tokens": budget.max_tokens})
    print(make_plan(with_batch_tokens(settings, config), config, device).table())
