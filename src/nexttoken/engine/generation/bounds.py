"""How much each row may write: max_new_tokens, or what the model's context leaves of it."""

from collections.abc import Sequence

from nexttoken.engine.batches import token_batches
from nexttoken.engine.generation.rows import GenerationPrompt
from nexttoken.errors import UserError, first_five


def bounds(prompts: Sequence[GenerationPrompt], max_new_tokens: int, context: int | None) -> list[int]:
    """Tokens that each row may write at most; the rows that may write fewer than asked for are named.

    `context` is the number of positions that the model has, None where it has no such number.
    Raises UserError for a prompt without tokens, and for one that leaves no room for an answer.
    """
    if empty := [prompt.id for prompt in prompts if not len(prompt.token_ids)]:
        raise UserError(f"{len(empty)} prompts have no tokens ({first_five(empty)}); a model needs at least one")
    if context is None:
        return [max_new_tokens] * len(prompts)
    room = [context - len(prompt.token_ids) for prompt in prompts]
    if full := [prompt.id for prompt, left in zip(prompts, room, strict=True) if left < 1]:
        raise UserError(
            f"{len(full)} prompts fill the model's context of {context} tokens ({first_five(full)}); lower max_tokens"
            f" to {max(context - max_new_tokens, 1)} or less"
        )
    if short := [prompt.id for prompt, left in zip(prompts, room, strict=True) if left < max_new_tokens]:
        print(
            f"{len(short)} rows can write fewer than max_new_tokens={max_new_tokens}: the model's context holds"
            f" {context} tokens ({first_five(short)})"
        )
    return [min(left, max_new_tokens) for left in room]


def batches(prompts: Sequence[GenerationPrompt], bounds: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Row indices that are written together: rows x (longest prompt + bound) <= `batch_tokens`, longest first.

    A batch has one bound. Rows whose bound was lowered end at the context's last position, and a row that has ended is
    fed with padding until its batch has: beside a row with more room it would go past the last position.
    """
    whole: list[list[int]] = []
    for bound in sorted(set(bounds)):  # the lowest belong to the longest prompts
        own = [row for row, other in enumerate(bounds) if other == bound]
        lengths = [len(prompts[row].token_ids) + bound for row in own]
        whole += [[own[place] for place in batch] for batch in token_batches(lengths, batch_tokens)]
    return whole
