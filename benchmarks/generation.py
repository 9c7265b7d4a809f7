"""Generation of many answers at a time, compared with one by one.

python -m benchmarks.generation model=../shared/models/stories260k                       64 prompts, 64 new tokens
python -m benchmarks.generation model=... prompts=64 new_tokens=64 batch_tokens=16384 repeats=3

One by one is transformers' own `generate` for each prompt alone. Both write the same texts, and it says so.
"""

import statistics
import time
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, PositiveInt

from benchmarks.measure import Repeats
from nexttoken.commands.arguments import Arguments, run
from nexttoken.engine.generation.transformers import TransformersGenerator
from nexttoken.engine.generation.writer import GenerationPrompt
from nexttoken.models.load import load_model, load_tokenizer
from nexttoken.models.processes import choose_device
from nexttoken.settings import GenerationSettings, ModelSettings

STORY = (
    "Once upon a time there was a little girl named Lily and her dog Tim who loved to "
    "play in the park with a big red ball. "
    "One day they saw a cat and said hello to it, but the cat was sad. It had lost its hat in the rain."
)
WORDS = STORY.split()


def prompts_of(tokenizer: Any, number: int) -> list[GenerationPrompt]:
    """Prompts of 1 to 40 words, in no order of length."""
    texts = [" ".join(WORDS[row % 7 : row % 7 + 1 + row * 11 % 40]) for row in range(number)]
    rows = [np.array(tokenizer(text)["input_ids"], dtype=np.int32) for text in texts]
    return [GenerationPrompt(str(row), token_ids) for row, token_ids in enumerate(rows)]


@torch.inference_mode()
def one_by_one(model: Any, tokenizer: Any, prompts: list[GenerationPrompt], new_tokens: int) -> list[str]:
    texts, device = [], next(model.parameters()).device
    for prompt in prompts:
        token_ids = torch.tensor(prompt.token_ids[None], dtype=torch.int64, device=device)
        options = {"max_new_tokens": new_tokens, "do_sample": False, "pad_token_id": tokenizer.eos_token_id}
        whole = model.generate(token_ids, attention_mask=torch.ones_like(token_ids), **options)
        texts.append(tokenizer.decode(whole[0, token_ids.shape[1] :], skip_special_tokens=True).strip())
    return texts


class GenerationArguments(Arguments):
    model: Annotated[str, Field(examples=["<a folder or hub name>"])]
    prompts: PositiveInt = 64
    new_tokens: PositiveInt = 64
    batch_tokens: PositiveInt = 16384
    repeats: Repeats = 3


def main(arguments: Sequence[str]) -> None:
    given = GenerationArguments.parse(arguments)
    number, new_tokens = given.prompts, given.new_tokens
    settings = ModelSettings(name_or_path=given.model)
    tokenizer = load_tokenizer(settings, [])
    model: Any = load_model(settings, tokenizer, 512).eval().to(choose_device())
    prompts = prompts_of(tokenizer, number)
    generator = TransformersGenerator(model, tokenizer, given.batch_tokens, [tokenizer.eos_token_id])
    ratios: list[float] = []
    for _ in range(given.repeats):
        start = time.perf_counter()
        rows = {row.id: row.output for row in generator.write(prompts, GenerationSettings(max_new_tokens=new_tokens))}
        middle = time.perf_counter()
        alone = one_by_one(model, tokenizer, prompts, new_tokens)
        batched, single = number / (middle - start), number / (time.perf_counter() - middle)
        ratios.append(batched / single)
        same = sum(rows[prompt.id] == text for prompt, text in zip(prompts, alone, strict=True))
        print(f"batched {batched:.1f} rows/s, one by one {single:.2f} rows/s, {ratios[-1]:.1f}x; {same}/{number} alike")
    print(f"median {statistics.median(ratios):.1f}x ({min(ratios):.1f} to {max(ratios):.1f})")


if __name__ == "__main__":
    run(main, __doc__)
