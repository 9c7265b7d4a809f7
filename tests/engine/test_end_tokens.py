"""An answer ends at each token that the tokenizer, the chat template or the model's own files name as an end."""

import copy

import pytest
import torch

from nexttoken.engine.answerers import TextAnswerer
from nexttoken.models.load import end_ids, load_model, load_tokenizer, resolve
from nexttoken.models.saved import save_whole
from nexttoken.prompts.encode_texts import TextEncoder
from nexttoken.prompts.prompt import Prompt
from nexttoken.settings import GenerationSettings, ModelSettings
from nexttoken.types import Example
from support.composed import settings

PROMPT = Prompt("{{ q[0] }}\n", "")
ROW = Example("1", {"q": ("Once upon a time there was a cat.",)})


def answerer(scratch, own, generation) -> TextAnswerer:
    model = copy.deepcopy(scratch.model)
    model.config.eos_token_id, model.generation_config.eos_token_id = own, generation
    return TextAnswerer(model, TextEncoder(scratch.tokenizer, PROMPT, 128), 512)


@pytest.mark.parametrize(
    ("own", "generation", "named"),
    [([5, 6], [7, 8], [5, 6, 7, 8]), (5, None, [5]), (None, 7, [7]), (None, None, []), ([5, 10**6, -1], [5], [5])],
)
def test_an_answer_ends_at_every_end_that_the_models_files_name(scratch, own, generation, named):
    end = scratch.tokenizer.eos_token_id
    assert answerer(scratch, own, generation).writer.generator.stop_ids == sorted({*named, end})


def test_an_answer_stops_before_such_a_token(scratch):
    greedy = GenerationSettings(max_new_tokens=12)
    free = answerer(scratch, None, None).writer
    whole = free.write([ROW], greedy)
    prompt = free.encoder.encode_prompts([ROW], 12).prompts[0].token_ids
    ids = free.generator.model.generate(torch.tensor(prompt[None].tolist()), max_new_tokens=12, do_sample=False)[0]
    third = int(ids[len(prompt) + 2])
    ended = answerer(scratch, None, [3, third]).writer.write([ROW], greedy)
    assert ended.columns["num_tokens"][0] <= 2 < whole.columns["num_tokens"][0]
    assert ended.columns["finished"][0]
    assert whole.texts[0].startswith(ended.texts[0])


def test_the_ends_of_a_folder_are_read_before_its_weights(base_dir, tmp_path):
    tokenizer = load_tokenizer(ModelSettings(name_or_path=str(base_dir)), ())
    model = load_model(ModelSettings(name_or_path=str(base_dir)), tokenizer, 64)
    model.config.eos_token_id, model.generation_config.eos_token_id = 3, [4, 5]
    save_whole(tmp_path, model, tokenizer)
    spec = resolve(settings(f"model.name_or_path={tmp_path}"))
    assert end_ids(spec, len(tokenizer)) == [3, 4, 5]
    (tmp_path / "generation_config.json").unlink()
    assert end_ids(spec, len(tokenizer)) == [3]
