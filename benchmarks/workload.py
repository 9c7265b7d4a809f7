"""The input of both sides of a comparison: a model with random weights, and prompts of heavy-tailed lengths."""

import time
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import NormalDist, median
from typing import Any

import numpy as np

from benchmarks.shapes import Shape, body_parameters, build, shape

PAD, EOS = 0, 1  # what the peers' tokenizers need; no prompt holds them
LABEL_IDS = (11, 12, 13)  # of A, B and tie
FIRST_ID = 20  # of the prompts' random tokens
SPREAD = 0.8  # of the logarithm of a prompt's tokens, which are normal
POPULATION = 1024  # rows that a workload is a sample of
RATE_TOKENS = 1024  # rows of the products that the machine's rate is measured by

INITIALIZER_RANGE = 0.05  # so that the answers of random weights differ from row to row
REALISTIC = shape("LlamaConfig", 512, 1280, 8, 8, 8, vocab_size=8192, max_position_embeddings=4096)  # 24M body
GEMMA = shape("Gemma2Config", 256, 1024, 8, 4, 2, head_dim=64, vocab_size=256000, max_position_embeddings=4096)
TINY = shape("LlamaConfig", 32, 64, 2, 2, 2, vocab_size=64, max_position_embeddings=4096)
TINY_GEMMA = shape("Gemma2Config", 32, 64, 2, 2, 1, head_dim=16, vocab_size=512, max_position_embeddings=4096)


def small_body(vocab_size: int) -> Shape:
    """A Llama as small as GEMMA's body, with another vocabulary."""
    return shape("LlamaConfig", 256, 1024, 8, 4, 2, vocab_size=vocab_size, max_position_embeddings=4096)


@dataclass(frozen=True)
class Workload:
    """A model's shape and precision, and how many prompts of which lengths: everything is drawn from fixed seeds."""

    shape: Shape
    rows: int
    precision: str = "float32"
    shortest: int = 100  # tokens
    median: int = 300
    longest: int = 2000
    alike: int = 1  # rows of nearly the same length: a peer that sorts a thousand rows pads as little as with these
    prefix: int = 0  # further tokens that all prompts begin with

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each prompt behind the common prefix, in random order: out of POPULATION rows sorted by length,
        groups of `alike` neighbours at equal distances. The same number of rows always has the same lengths.
        """
        population, groups = max(POPULATION, self.rows), -(-self.rows // self.alike)
        firsts = [int((group + 0.5) * population / groups) - self.alike // 2 for group in range(groups)]
        places = [first + member for first in firsts for member in range(self.alike)][: self.rows]
        normal = NormalDist(np.log(self.median), SPREAD)
        drawn = [np.exp(normal.inv_cdf((place + 0.5) / population)) for place in places]
        clipped = np.clip(drawn, self.shortest, self.longest).astype(int)
        return np.random.default_rng(0).permutation(clipped).tolist()

    @cached_property
    def prompts(self) -> list[list[int]]:
        rng, vocab_size = np.random.default_rng(1), self.shape.sizes["vocab_size"]
        prefix = rng.integers(FIRST_ID, vocab_size, self.prefix).tolist()
        return [[*prefix, *rng.integers(FIRST_ID, vocab_size, length).tolist()] for length in self.lengths]

    @property
    def tokens(self) -> int:
        return sum(self.lengths) + self.rows * self.prefix

    @property
    def labels(self) -> list[int]:
        """The right class of each prompt."""
        return [row % len(LABEL_IDS) for row in range(self.rows)]

    @property
    def body(self) -> int:
        """Parameters of the decoder layers and norms."""
        return body_parameters(self.config())

    def config(self) -> Any:
        config = self.shape.config()
        config.initializer_range, config.pad_token_id = INITIALIZER_RANGE, PAD
        return config

    def model(self) -> Any:
        """The causal LM: the same weights in each process, drawn in float32 and rounded to the precision."""
        import torch

        torch.manual_seed(0)
        return build(self.config(), "cpu", torch.float32).to(getattr(torch, self.precision)).eval()

    def with_prefix_share(self, share: float) -> "Workload":
        """The same rows behind a prefix that makes up `share` of all tokens."""
        return replace(self, prefix=round(sum(self.lengths) / self.rows * share / (1 - share)))


class MatrixRate:
    """The rate of the machine at a model's own products, without anything around them: what utilisation refers to.

    Each weight matrix of the decoder layers times RATE_TOKENS vectors, results written where memory already is.
    """

    def __init__(self, model: Any) -> None:
        from torch import nn

        head = model.get_output_embeddings()
        linear = [m for m in model.modules() if isinstance(m, nn.Linear) and m is not head]
        self.weights = [module.weight.detach() for module in linear]

    def __call__(self, repeats: int = 5) -> float:
        """Operations per second: median of several passes over all matrices, behind one that is not counted."""
        import torch

        dtype, shapes = self.weights[0].dtype, [weight.shape for weight in self.weights]
        inputs = {width: torch.randn(RATE_TOKENS, width, dtype=dtype) for width in {shape[1] for shape in shapes}}
        outputs = {width: torch.empty(RATE_TOKENS, width, dtype=dtype) for width in {shape[0] for shape in shapes}}
        seconds = []
        for _ in range(1 + repeats):
            start = time.perf_counter()
            for weight in self.weights:
                torch.mm(inputs[weight.shape[1]], weight.T, out=outputs[weight.shape[0]])
            seconds.append(time.perf_counter() - start)
        return 2 * RATE_TOKENS * sum(weight.numel() for weight in self.weights) / median(seconds[1:])


def tokenizer(vocab_size: int) -> Any:
    """A tokenizer of one word per id, for peers that want one; the prompts are given to them as ids."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    words = {PAD: "<pad>", EOS: "<eos>"} | dict(zip(LABEL_IDS, ("A", "B", "tie"), strict=True))
    fast = Tokenizer(WordLevel({words.get(i, f"w{i}"): i for i in range(vocab_size)}, unk_token="<pad>"))
    fast.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=fast, pad_token="<pad>", eos_token="<eos>", unk_token="<pad>")


def softmax(scores: np.ndarray) -> np.ndarray:
    """(N, K) float64 probabilities of scores."""
    raised = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)
