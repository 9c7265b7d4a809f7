"""A pretrained model of 135 million weights, fetched once from the registry: it answers, reads labels and learns."""

import numpy as np
import pytest
import torch

from conftest import Pair
from nexttoken.engine.generation.transformers import TransformersGenerator
from nexttoken.engine.generation.writer import GenerationPrompt
from nexttoken.engine.heads import LabelSoftmax
from nexttoken.engine.label_answerer import LabelAnswerer
from nexttoken.models.adapters import add_adapter
from nexttoken.models.load import load_model, load_tokenizer
from nexttoken.models.precision import compute_in
from nexttoken.prompts.encode_labels import Encoder
from nexttoken.prompts.label_audit import audit_situations
from nexttoken.prompts.prompt import Prompt
from nexttoken.settings import AdapterSettings, GenerationSettings, ModelSettings
from nexttoken.training.steps import Batcher
from nexttoken.types import Example

pytestmark = pytest.mark.real

PROMPT = Prompt("{{ question[0] }}\n", "### Answer\n", ["A", "B", "tie"])
ROWS = [
    Example("0", {"question": ("Which is warmer, A: ice or B: fire?",)}, 1),
    Example("1", {"question": ("Which is a fruit, A: an apple or B: a stone?",)}, 0),
    Example("2", {"question": ("Which is larger, A: 1 + 1 or B: 2?",)}, 2),
]
LORA = AdapterSettings(r=4, alpha=8, dropout=0.0, target_modules=["q_proj"], rslora=False, dora=False, init="default")


@pytest.fixture(scope="module")
def pair(smollm2) -> Pair:
    settings = ModelSettings(name_or_path=str(smollm2))
    tokenizer = load_tokenizer(settings, ())
    return Pair(tokenizer, load_model(settings, tokenizer, 512, torch.float32).eval())


def test_it_knows_the_capital_of_france(pair):
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    text = pair.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = pair.tokenizer(text, add_special_tokens=False).input_ids
    generator = TransformersGenerator(pair.model, pair.tokenizer, 512, [pair.tokenizer.eos_token_id])
    (row,) = generator.write([GenerationPrompt("0", np.array(ids, np.int32))], GenerationSettings(max_new_tokens=12))
    assert row.output == "The capital of France is Paris."


def test_its_labels_are_one_token_each(pair):
    labels = Encoder(pair.tokenizer, PROMPT, 64).encode(ROWS).labels
    assert [len(continuation) for continuation in labels.continuations] == [1, 1, 1]
    assert labels.num_rejoined == 0
    assert all(audit.tokens is not None for audit in audit_situations(pair.tokenizer))


def test_zero_shot_probabilities_are_those_of_its_own_logits(pair):
    encoder = Encoder(pair.tokenizer, PROMPT, 64)
    encoded = encoder.encode(ROWS)
    probs = LabelAnswerer(pair.model, LabelSoftmax(), encoder, encoded.labels, 512)(ROWS).probs
    ids = [continuation[0] for continuation in encoded.labels.continuations]
    for prompt, row in zip(encoded.prompts, probs, strict=True):
        assert prompt.token_ids.tolist() == pair.tokenizer(prompt.text).input_ids
        with torch.no_grad():
            logits = pair.model(torch.tensor(prompt.token_ids[None].astype(np.int64))).logits[0, -1]
        np.testing.assert_allclose(row, torch.softmax(logits[ids], 0).numpy(), atol=1e-5)


def test_an_adapter_on_16_bit_weights_learns(smollm2):
    settings = ModelSettings(name_or_path=str(smollm2))
    tokenizer = load_tokenizer(settings, ())
    encoded = Encoder(tokenizer, PROMPT, 64).encode(ROWS)
    model = add_adapter(load_model(settings, tokenizer, 64, torch.bfloat16), LORA, None)
    compute_in(model, torch.bfloat16)
    (batch,) = Batcher(LabelSoftmax(), encoded.labels, 512).batches(encoded.prompts)
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=3e-3)
    losses = []
    for _ in range(2):
        loss = LabelSoftmax().loss(model, batch, encoded.labels) / len(ROWS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[1] < losses[0] - 0.005
