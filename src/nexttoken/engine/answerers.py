"""The encoder and the answerer that go with a head: one pair for labels, one for open answers."""

from typing import Any

from torch import nn

from nexttoken.engine.heads import AnswerText, Head
from nexttoken.engine.label_answerer import LabelAnswerer
from nexttoken.engine.text_answerer import TextAnswerer
from nexttoken.prompts.encode_labels import Encoder
from nexttoken.prompts.encode_texts import TextEncoder
from nexttoken.prompts.label_tokens import LabelTokens
from nexttoken.prompts.prompt import Prompt

AnyEncoder = Encoder | TextEncoder
Answerer = LabelAnswerer | TextAnswerer


def make_encoder(head: Head, tokenizer: Any, prompt: Prompt, max_tokens: int) -> AnyEncoder:
    kind = TextEncoder if isinstance(head, AnswerText) else Encoder
    return kind(tokenizer, prompt, max_tokens)


def make_answerer(head: Any, model: nn.Module, encoder: AnyEncoder, labels: LabelTokens, batch_tokens: int) -> Answerer:
    if isinstance(encoder, TextEncoder):
        return TextAnswerer(model, encoder, batch_tokens)
    return LabelAnswerer(model, head, encoder, labels, batch_tokens)
