"""Answer lengths that the model's context allows, and batches of prompts with the same limit."""

from collections.abc import Sequence

from nexttoken.engine.batches import token_batches
from nexttoken.engine.generation.writer import GenerationPrompt
from nexttoken.errors import UserError, first_five


def max_new_tokens(prompts: Sequence[GenerationPrompt], wanted: int, context: int | None) -> list[int]:
    """The number of new tokens each row may get: `wanted`, or what its prompt leaves of the `context`, if it has one.

    Prints the rows that get fewer than wanted. Raises UserError for a prompt without tokens, and for one that fills the
    context.
    """
    if empty := [prompt.id for prompt in prompts if not len(prompt.token_ids)]:
        raise UserError(f"{len(empty)} prompts have no tokens ({first_five(empty)}); a model needs at least one")
    if context is None:
        return [wanted] * len(prompts)
    left = [context - len(prompt.token_ids) for prompt in prompts]
    if full := [prompt.id for prompt, number in zip(prompts, left, strict=True) if number < 1]:
        raise UserError(
            f"{len(full)} prompts fill the model's context of {context} tokens ({first_five(full)}); lower max_tokens"
            f" to {max(context - wanted, 1)} or less"
        )
    if short := [prompt.id for prompt, number in zip(prompts, left, strict=True) if number < wanted]:
        print(
            f"{len(short)} rows can write fewer than max_new_tokens={wanted}: the model's context holds"
            f" {context} tokens ({first_five(short)})"
        )
    return [min(number, wanted) for number in left]


def generation_batches(
    prompts: Sequence[GenerationPrompt], limits: Sequence[int], batch_tokens: int
) -> list[list[int]]:
    """Row indices by batch, with rows x (longest prompt + limit) <= `batch_tokens`, longest first.

    All rows of a batch have the same limit: `generate` pads finished rows until the batch ends, and a row that fills
    the context would run past its last position beside one with a higher limit.
    """
    batches: list[list[int]] = []
    for limit in sorted(set(limits)):  # the lowest limits belong to the longest prompts
        rows = [row for row, other in enumerate(limits) if other == limit]
        lengths = [len(prompts[row].token_ids) + limit for row in rows]
        batches += [[rows[place] for place in batch] for batch in token_batches(lengths, batch_tokens)]
    return batches
