"""Does giving memory back between batches of different size help?  python -m benchmarks.release [threads=1]

Twelve forward batches of about 4,096 tokens, rows of 2,048 down to 32, through a Llama of four layers: each way in a
process of its own, once to warm up and once measured. On a GPU, `empty_cache` stands for `malloc_trim`.
"""

import ctypes
import gc
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import PositiveInt

from benchmarks.measure import status_kb
from benchmarks.shapes import shape
from nexttoken.commands.arguments import Arguments, run
from nexttoken.report.markdown import markdown

LENGTHS = {
    "longest first": (2048, 1536, 1024, 768, 512, 384, 256, 192, 128, 96, 64, 32),
    "mixed": (256, 2048, 64, 1024, 128, 1536, 32, 768, 512, 96, 384, 192),
}
WAYS = {"nothing": (), "gc.collect()": ("gc",), "malloc_trim(0)": ("trim",), "both": ("gc", "trim")}
BATCH_TOKENS = 4096


def measure(way: str, order: str, threads: int) -> str:
    """`peak MiB, seconds` of one way in this process."""
    import torch
    from transformers import LlamaForCausalLM

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    config = shape("LlamaConfig", 192, 512, 4, 4, 4, vocab_size=8000, max_position_embeddings=2048).config()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = LlamaForCausalLM(config).eval().to(device)

    @torch.inference_mode()
    def batches() -> None:
        for length in LENGTHS[order]:
            ids = torch.randint(0, 8000, (max(BATCH_TOKENS // length, 1), length), device=device)
            hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, -1:]
            model.lm_head(hidden).cpu()
            del hidden
            if "gc" in WAYS[way]:
                gc.collect()
            if "trim" in WAYS[way]:
                torch.cuda.empty_cache() if device == "cuda" else ctypes.CDLL("libc.so.6").malloc_trim(0)

    batches()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # Linux forgets the peak so far
    start = time.perf_counter()
    batches()
    seconds = time.perf_counter() - start
    if device == "cuda":
        return f"{torch.cuda.max_memory_reserved() / 2**20:.0f}, {seconds:.1f}"
    return f"{status_kb('VmHWM') / 1024:.0f}, {seconds:.1f}"


class ReleaseArguments(Arguments):
    way: str = ""  # measured in this process; else all are, each in its own
    order: str = ""
    threads: PositiveInt = 1


def main(arguments: Sequence[str]) -> None:
    given = ReleaseArguments.parse(arguments)
    if given.way:
        print(measure(given.way, given.order, given.threads))
        return
    rows = []
    for way in WAYS:
        options = [[f"way={way}", f"order={order}", f"threads={given.threads}"] for order in LENGTHS]
        commands = [[sys.executable, "-m", "benchmarks.release", *arguments] for arguments in options]
        rows.append([way, *(subprocess.check_output(command, text=True).strip() for command in commands)])
    print(markdown(["between batches", *(f"{order}: peak MiB, seconds" for order in LENGTHS)], rows))


if __name__ == "__main__":
    run(main, __doc__)
