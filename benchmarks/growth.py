"""Measure how speed and memory change with the number of rows: tokenise and predict 1,000 to 60,000 rows.

python -m benchmarks.growth                        about ten minutes on 2 cores
python -m benchmarks.growth rows=500,2000 repeats=1 out=growth.json

Every measurement runs in its own process, with pairs of answers as in the sample competition, a tiny model with random
weights, and this project's encoder and answerer. The rows are tokenised, tokenised again from the cache, and predicted.
Memory means private memory, because the system can take back mapped files of the cache at any time.
"""

import os
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from benchmarks.measure import SPLIT, Record, Repeats, Run, compare, status_kb, table, write_records
from nexttoken.commands.arguments import Arguments, run
from nexttoken.errors import UserError
from nexttoken.types import Example

if TYPE_CHECKING:
    from nexttoken.engine.label_answerer import LabelAnswerer

SAMPLING_SECONDS = 0.002  # between two readings of the memory
TOKENIZER_ROWS = 500  # the tokenizer is trained on these for every size
Size = Annotated[int, Field(ge=TOKENIZER_ROWS, le=1_000_000)]
WORK = {"tokenise": "first time", "again": "rows in the cache", "predict": "tiny model"}


@dataclass(frozen=True)
class Phase:
    """One piece of work: its seconds, its CPU seconds, and its peak of private memory beyond the start in MB."""

    seconds: float
    cpu_seconds: float
    extra_mb: float


class Watched:
    """A context manager that measures what happens inside; `phase` is there afterwards."""

    phase: Phase

    def __enter__(self) -> "Watched":
        self._before = self._peak = private_mb()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        self._start = time.perf_counter(), time.process_time()
        return self

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLING_SECONDS):
            self._peak = max(self._peak, private_mb())

    def __exit__(self, *_: object) -> None:
        spent = time.perf_counter() - self._start[0], time.process_time() - self._start[1]
        self._ended.set()
        self._thread.join()
        self.phase = Phase(*spent, max(self._peak, private_mb()) - self._before)


def private_mb() -> float:
    """Memory of this process that no file stands behind (Linux)."""
    return status_kb("RssAnon") / 1024


def measure(num_rows: int, cache: str) -> dict[str, Phase]:
    """The measured phases of so many rows, by name of the work, in this process; `cache` is an empty folder."""
    from nexttoken.engine.label_answerer import predict_labels
    from nexttoken.prompts import token_cache

    os.environ |= {"NEXTTOKEN_CACHE": cache, "TOKENIZERS_PARALLELISM": "true"}
    token_cache.MIN_CHARACTERS = 0  # otherwise a thousand short rows would not be cached
    rows = examples(num_rows)
    answerer = tiny_answerer(rows)
    answerer(rows[:2])  # loads what is imported at the first use
    answerer.reset_counts()
    with Watched() as tokenise:
        encoded = answerer.encoder.encode(rows)
    del encoded
    with Watched() as again:
        encoded = answerer.encoder.encode(rows)
    with Watched() as predict:
        predict_labels(answerer.model, answerer.head, encoded.prompts, answerer.labels, answerer.batch_tokens)
    return {"tokenise": tokenise.phase, "again": again.phase, "predict": predict.phase}


def examples(num_rows: int) -> list[Example]:
    import numpy as np

    from samples.preferences import TEXTS, draw_pairs

    examples = []
    for row, pair in enumerate(draw_pairs(num_rows, np.random.default_rng(0))):
        texts = [tuple(turn or "" for turn in text.turns) for text in (pair.prompt, *pair.answers)]
        examples.append(Example(str(pair.id), dict(zip(TEXTS, texts, strict=True)), row % 3))
    return examples


def tiny_answerer(rows: Sequence[Example]) -> "LabelAnswerer":
    import torch

    from nexttoken.engine.heads import LabelSoftmax
    from nexttoken.engine.label_answerer import LabelAnswerer
    from nexttoken.models.load import load_model, load_tokenizer
    from nexttoken.prompts.encode_labels import Encoder
    from nexttoken.prompts.prompt import Prompt
    from nexttoken.settings import ModelSettings, ScratchSettings
    from nexttoken.training.learner import training_texts

    torch.manual_seed(0)
    loop = "{% for q, a, b in zip(prompt, response_a, response_b) %}Q: {{ q }}\nA: {{ a }}\nB: {{ b }}\n{% endfor %}"
    prompt = Prompt("Which answer is better?\n" + loop, "### Answer\n", ("A", "B", "tie"))
    settings = ModelSettings(scratch=ScratchSettings(vocab_size=1000, hidden_size=32, num_layers=1, num_heads=2))
    tokenizer = load_tokenizer(settings, training_texts(prompt, rows[:TOKENIZER_ROWS]))
    encoder = Encoder(tokenizer, prompt, 512)
    labels = encoder.encode(rows[:1]).labels
    return LabelAnswerer(load_model(settings, tokenizer, 512).eval(), LabelSoftmax(), encoder, labels, 4096)


def record(phase: str, measured: dict[int, list[dict[str, Phase]]]) -> Record:
    """The largest number of rows beside the smallest; the figures of all sizes are in `facts`."""
    rates, memory, sizes = {}, {}, {}
    for size, repeats in measured.items():
        phases = [repeat[phase] for repeat in repeats]
        rates[size] = [size / one.seconds for one in phases]
        memory[size] = median(one.extra_mb for one in phases)
        cpu_ms = median(one.cpu_seconds for one in phases) / size * 1e3
        facts = {"rows_per_second": round(median(rates[size])), "cpu_ms_per_row": round(cpu_ms, 3)}
        sizes[str(size)] = facts | {"extra_mb": round(memory[size], 1)}
    few, many = min(rates), max(rates)
    work = f"{'tokenise' if phase == 'again' else phase} {many:,} rows, {WORK[phase]}"
    ours, peers = ([Run(1 / rate, memory[size]) for rate in rates[size]] for size in (many, few))
    precision, pairs = "float32" if phase == "predict" else None, list(zip(ours, peers, strict=True))
    made = compare(work, f"{few:,} rows", precision, pairs, packages=("tokenizers",), facts={"sizes": sizes})
    # `compare` divides medians of seconds per row; here the ratio is that of median rates.
    rate, peer_rate = median(rates[many]), median(rates[few])
    ratios: dict[str, Any] = {"ratio": rate / peer_rate, "memory_ratio": memory[many] / max(memory[few], 1.0)}
    return replace(made, **ratios, seconds=many / rate, peer_seconds=few / peer_rate)


class GrowthArguments(Arguments):
    rows: Annotated[tuple[Size, ...], SPLIT] = (1000, 5000, 20_000, 60_000)
    repeats: Repeats = 3
    out: Path = Path("benchmarks/results/growth.json")


def main(arguments: Sequence[str]) -> None:
    """Raises UserError for an unknown key, or fewer than two sizes."""
    given = GrowthArguments.parse(arguments)
    sizes = sorted({*given.rows})
    if len(sizes) < 2:
        raise UserError(f"rows={sizes[0]} is one size; expected two or more, such as rows=1000,60000")
    measured: dict[int, list[dict[str, Phase]]] = {size: [] for size in sizes}
    for _ in range(given.repeats):
        for size in sizes:
            with tempfile.TemporaryDirectory() as cache, ProcessPoolExecutor(1, get_context("spawn")) as process:
                phases = process.submit(measure, size, cache).result()
            measured[size].append(phases)
            figures = [
                f"{name} {size / one.seconds:,.0f} rows/s +{one.extra_mb:.0f} MB" for name, one in phases.items()
            ]
            print(f"{size:,} rows: {', '.join(figures)}", flush=True)
    records = [record(phase, measured) for phase in WORK]
    print(table(records))
    write_records(given.out, records)


if __name__ == "__main__":
    run(main, __doc__)
