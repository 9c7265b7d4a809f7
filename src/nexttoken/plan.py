"""Prints what a run would need in memory, against what is free, before any weight is downloaded or loaded."""

from collections.abc import Sequence

from nexttoken.arguments import run

USAGE = """
What a run needs in memory, and what would fit:  python -m nexttoken.plan [key=value ...]

The arguments are those of train.py. A hub model's configuration is read; its weights are not.
    python -m nexttoken.plan model=llama3_8b adapter=lora quantization=nf4
    python -m nexttoken.plan model=llama3_8b adapter=lora batch_tokens=16384 fit.gradient_checkpointing=true
"""


def plan(arguments: Sequence[str]) -> None:
    from nexttoken.checks import check_settings
    from nexttoken.compose import compose
    from nexttoken.parts import plain
    from nexttoken.settings import AUTO, Settings

    settings = check_settings(Settings, plain(compose("train", arguments)))
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


if __name__ == "__main__":
    run(plan, USAGE)
