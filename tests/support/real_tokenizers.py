"""Real tokenizers without a download: those that mistral-common brings, and some of every kind trained here."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import generate_merges

from conftest import CHAT_TEMPLATE

INSTRUCT = {  # what mistral_common writes for one user message, as a chat template
    "v1": "{{ bos_token }}{% for message in messages %}[INST] {{ message.content }} [/INST]{% endfor %}",
    "v3": "{{ bos_token }}{% for message in messages %}[INST]{{ message.content }}[/INST]{% endfor %}",
}
ENGLISH = (
    "Which answer is better, A or B? If both are appropriate, answer tie.",
    "### Answer: A\n### Answer: B\n### Answer: Tie\n### Answer\ntie",
    "Rate it from 0 to 4, or from 1 to 10: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 out of 10.",
    "Plant roses in May. Ask me again. They say it depends. Both are tied.",
    "Which one?\n### Answer: A\n###",  # so that ### is one piece: # and ## in either order would be equally likely
)
JAPANESE = (
    "どちらの回答が良いですか？ A か B、同じなら tie と答えてください。",
    "### 回答: A\n### 回答: B\n### 回答: Tie\n### 回答\ntie",
    "0から4、または1から10で評価してください。評価は10点です。",
    "バラは五月に植えます。もう一度聞いてください。場合によります。",
)

TEXTS = (ENGLISH + JAPANESE) * 20


@dataclass(frozen=True)
class Reference:
    """A tokenizer as this project loads it, and the ids that the library it comes from gives for a text."""

    tokenizer: Any
    ids: Callable[[str], list[int]]
    chat_ids: Callable[[str], list[int]] | None = None  # of one user message


def mistral_file(name: str) -> Path:
    """A file of the package mistral-common, found without importing it."""
    spec = find_spec("mistral_common")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "data" / name


@cache
def mistral(version: str) -> Reference:
    """Mistral's sentencepiece vocabularies: "v1" writes [INST] as text, "v3" has it as a token."""
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
    from sentencepiece import SentencePieceProcessor

    names = {"v1": "tokenizer.model.v1", "v3": "mistral_instruct_tokenizer_240323.model.v3"}
    pieces = SentencePieceProcessor(model_file=str(mistral_file(names[version])))
    tokenizer = from_sentencepiece(pieces, unigram=False)
    tokenizer.chat_template = INSTRUCT[version]
    return Reference(tokenizer, pieces.encode, chat_ids(getattr(MistralTokenizer, version)()))


@cache
def tekken() -> Reference:
    """Mistral's byte-level vocabulary of 2024, by transformers' own converter."""
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer
    from transformers.integrations.mistral.tokenizer import MistralConverter

    source = MistralTokenizer.v3(is_tekken=True)
    own = source.instruct_tokenizer.tokenizer
    content = json.loads(own.file_path.read_text(encoding="utf-8"))
    content["special_tokens"] = [*Tekkenizer.DEPRECATED_SPECIAL_TOKENS]  # files of that year do not name them
    with TemporaryDirectory() as folder:
        path = Path(folder) / "tekken.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        tokenizer = with_opening(MistralConverter(str(path)).converted())
    tokenizer.chat_template = INSTRUCT["v3"]
    return Reference(tokenizer, lambda text: own.encode(text, bos=False, eos=False), chat_ids(source))


def chat_ids(tokenizer: Any) -> Callable[[str], list[int]]:
    from mistral_common.protocol.instruct.messages import UserMessage
    from mistral_common.protocol.instruct.request import ChatCompletionRequest

    return lambda text: (
        tokenizer.encode_chat_completion(ChatCompletionRequest(messages=[UserMessage(content=text)])).tokens
    )


@cache
def sentencepiece(model_type: str) -> Reference:
    """Trained here with bytes for unknown characters; "bpe" or "unigram"."""
    from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_writer=model,
        model_type=model_type,
        vocab_size=600,
        hard_vocab_limit=False,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        num_threads=1,
        minloglevel=2,
    )
    pieces = SentencePieceProcessor(model_proto=model.getvalue())
    return Reference(with_chatml(from_sentencepiece(pieces, unigram=model_type == "unigram")), pieces.encode)


def from_sentencepiece(pieces: Any, unigram: bool) -> PreTrainedTokenizerFast:
    """As transformers converts Llama's: a space in front, spaces as ▁, merges in the order of the scores."""
    numbers = range(pieces.get_piece_size())
    scores = {pieces.id_to_piece(number): pieces.get_score(number) for number in numbers}
    vocabulary = {piece: number for number, piece in enumerate(scores)}
    model = (
        models.Unigram([*scores.items()], unk_id=pieces.unk_id(), byte_fallback=True)
        if unigram
        else models.BPE(
            vocabulary, generate_merges(vocabulary, scores), unk_token="<unk>", fuse_unk=True, byte_fallback=True
        )
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(parts)
    special = [pieces.id_to_piece(number) for number in numbers if pieces.is_control(number)]
    tokenizer.add_special_tokens([AddedToken(piece, normalized=False, special=True) for piece in ["<unk>", *special]])
    return with_opening(tokenizer)


def with_opening(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    opening = [("<s>", tokenizer.token_to_id("<s>"))]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=opening)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@cache
def byte_level(add_prefix_space: bool, merge_digits: bool) -> Reference:
    """GPT-2's kind, trained here; without a beginning-of-sequence token, as Qwen has none."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = split if merge_digits else pre_tokenizers.Sequence([digits, split])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    return Reference(with_chatml(fast), lambda text: tokenizer.encode(text).ids)


def with_chatml(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


# Name in the docs -> builder; nothing here needs a file that is not in a package.
BUILDERS: dict[str, Callable[[], Reference]] = {
    "Mistral v1 (sentencepiece BPE)": partial(mistral, "v1"),
    "Mistral v3 (sentencepiece BPE)": partial(mistral, "v3"),
    "Mistral Tekken (byte-level BPE)": tekken,
    "sentencepiece unigram, trained here": partial(sentencepiece, "unigram"),
    "sentencepiece BPE, trained here": partial(sentencepiece, "bpe"),
    "byte-level BPE, trained here": partial(byte_level, add_prefix_space=False, merge_digits=False),
    "byte-level BPE with merged digits, trained here": partial(byte_level, add_prefix_space=False, merge_digits=True),
    "byte-level BPE with a space in front, trained here": partial(byte_level, add_prefix_space=True, merge_digits=True),
}
