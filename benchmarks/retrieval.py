"""Compare ways to split Japanese for BM25 by recall, and measure time and memory of a large corpus.

python -m benchmarks.retrieval corpus=../shared/data/text/aozora-dazai.jsonl.gz                  recall by way
python -m benchmarks.retrieval corpus=../shared/data/text/aozora-dazai.jsonl.gz passages=100000  time and memory

Recall: sentences are taken out of their passages. Each one is a query, and the rest of its passage is the right result
(an inverse cloze task, Lee et al. 2019). Time: passages are drawn with repetition until there are so many.
"""

import random
import re
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from pydantic import NonNegativeInt, PositiveInt

from nexttoken.commands.arguments import Arguments, run
from nexttoken.data.words import WORD, words
from nexttoken.inference.retrieval.bm25 import BM25
from nexttoken.inference.retrieval.corpus import Corpus
from nexttoken.inference.retrieval.corpus_files import SENTENCE_END
from nexttoken.report.markdown import markdown
from samples import write_lines

CUTOFFS = (1, 3, 5, 10)
LENGTHS = range(12, 61)  # characters of a sentence that is taken out
Split = Callable[[str], list[str]]
Query = tuple[int, str]  # the index of the right passage, and a sentence


@cache
def _tagger() -> Callable:
    import fugashi
    import unidic_lite

    return fugashi.Tagger(f'-r "{unidic_lite.DICDIR}/mecabrc" -d "{unidic_lite.DICDIR}"')


def dictionary_forms(text: str) -> list[str]:
    return [(w.feature.lemma or w.surface).split("-")[0] for w in _tagger()(text) if re.search(r"\w", w.surface)]


def pairs_of_characters(text: str) -> list[str]:
    letters = "".join(WORD.findall(text))
    return [letters[start : start + 2] for start in range(len(letters) - 1)]


WAYS: dict[str, Split] = {
    "as written": words,
    "both": lambda text: words(text) + dictionary_forms(text),
    "dictionary form": dictionary_forms,
    "pairs of characters": pairs_of_characters,
}


def draw_queries(texts: Sequence[str], number: int, seed: int) -> tuple[list[Query], list[str]]:
    """Sentences of different passages, and all passages without those sentences."""
    draw, rest = random.Random(seed), list(texts)
    queries: list[Query] = []
    for place in draw.sample(range(len(texts)), len(texts)):
        ends = [match.end() for match in SENTENCE_END.finditer(texts[place])]
        spans = [s for s in zip([0, *ends], ends, strict=False) if len(texts[place][slice(*s)].strip()) in LENGTHS]
        if len(spans) >= 3 and len(queries) < number:
            start, end = draw.choice(spans)
            queries.append((place, texts[place][start:end]))
            rest[place] = texts[place][:start] + texts[place][end:]
    return queries, rest


def recall(split: Split, queries: Sequence[Query], texts: Sequence[str]) -> list[str]:
    """Shares of sentences whose passage is among the first hits, and the CPU seconds of splitting the passages."""
    import bm25s

    start = time.process_time()
    tokens = [split(text) for text in texts]
    seconds = time.process_time() - start
    index = bm25s.BM25()
    index.index(tokens, show_progress=False)
    results, _ = index.retrieve([split(text) for _, text in queries], k=max(CUTOFFS), show_progress=False)
    ranks = [[*hits.tolist(), place].index(place) for hits, (place, _) in zip(results, queries, strict=True)]
    return [f"{sum(rank < k for rank in ranks) / len(ranks):.3f}" for k in CUTOFFS] + [f"{seconds:.1f}"]


def compare_words(texts: Sequence[str], number: int, seed: int) -> str:
    """Markdown: recall and CPU seconds of every way to split."""
    queries, rest = draw_queries(texts, number, seed)
    rows = [[name, *recall(split, queries, rest)] for name, split in WAYS.items()]
    title = f"{len(queries):,} sentences, {len(texts):,} passages"
    return markdown([title, *(f"recall@{k}" for k in CUTOFFS), "cutting, CPU seconds"], rows)


def measure_time(texts: Sequence[str], number: int, seed: int) -> str:
    """Markdown: seconds, CPU seconds and peak memory of building an index of `number` passages and of its queries."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.jsonl"
        write_lines(corpus, ({"text": text} for text in draw.choices(texts, k=number)))
        retriever = BM25(str(corpus), index_dir=f"{folder}/index", passage_characters=500)
        start, cpu, before = time.perf_counter(), time.process_time(), _peak_mb()
        retriever.search([texts[0][:40]])
        built = [f"{time.perf_counter() - start:.0f}", f"{time.process_time() - cpu:.0f}", f"{_peak_mb():.0f}"]
        queries = [text[:40] for text in draw.sample(list(texts), min(500, len(texts)))]
        start, cpu = time.perf_counter(), time.process_time()
        retriever.search(queries)
        each = [f"{seconds / len(queries):.4f}" for seconds in (time.perf_counter() - start, time.process_time() - cpu)]
    rows = [["read, cut, index, save", *built], ["each query, 5 hits", *each, f"{_peak_mb():.0f}"]]
    title = f"{number:,} passages (memory before: {before:.0f} MB)"
    return markdown([title, "seconds", "CPU seconds", "peak MB"], rows)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class RetrievalArguments(Arguments):
    corpus: str = "input/sample-quiz/corpus"
    queries: PositiveInt = 1000
    passages: NonNegativeInt = 0
    seed: NonNegativeInt = 0


def main(arguments: Sequence[str]) -> None:
    given = RetrievalArguments.parse(arguments)
    texts = [passage.text.partition("\n")[2] or passage.text for passage in Corpus(given.corpus).passages()]
    action, number = (measure_time, given.passages) if given.passages else (compare_words, given.queries)
    print(action(texts, number, given.seed))


if __name__ == "__main__":
    run(main, __doc__)
