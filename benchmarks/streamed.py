"""Measure a model of three times the allowed memory, whose layers are streamed from disk, against the same in memory.

python -m benchmarks.streamed                            about ten minutes on 2 cores, 2 GB of disk
python -m benchmarks.streamed limit_mb=400 rows=50 tokens=20 layers=2 out=streamed.json

A Llama with random weights in bfloat16 is written once. Each side loads it in a process of its own and answers the same
rows. The streamed side runs in a control group whose memory is limited: everything of the process counts, file pages
too, and the system ends a process that needs more. The side in memory has no limit. The system's cache of the file
is dropped before each side.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from benchmarks.measure import ROOT, Record, Repeats, Run, compare, status_kb, table, write_records
from nexttoken.commands.arguments import Arguments, run
from nexttoken.errors import UserError

LAYER_MB = 30.4  # of the shape below, in 16 bit
TIMES = 3  # as large as the allowed memory
FEW_KERNELS = {
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "16",
    "LRU_CACHE_CAPACITY": "16",
}  # of other batch sizes, kept in memory
GROUPS = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")  # versions 1 and 2
FILES = ("memory.limit_in_bytes", "memory.max_usage_in_bytes"), ("memory.max", "memory.peak")
SIDE = "import sys; from benchmarks.streamed import answer; answer(*sys.argv[1:])"


class StreamedArguments(Arguments):
    limit_mb: Annotated[int, Field(ge=100)] = 600
    layers: int | None = None  # None: as many as make the model TIMES as large as the limit
    rows: int = 1000
    tokens: int = 10  # of the median row; a third to three times as many
    repeats: Repeats = 2
    out: Path = Path("benchmarks/results/streamed.json")


def write_model(folder: Path, layers: int) -> int:
    """Write a random model; return its bytes."""
    import torch

    from benchmarks.shapes import shape, write_random_weights

    torch.manual_seed(0)
    sizes = shape("LlamaConfig", 1024, 4096, layers, 16, 4, vocab_size=8192, max_position_embeddings=2048)
    write_random_weights(sizes.config(), folder, torch.device("cpu"), torch.bfloat16)
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def answer(folder: str, streams: str, rows: str, tokens: str, out: str) -> None:
    """Load the model of a folder, answer the rows, and write probabilities and figures: a side, in its own process."""
    import time

    import torch

    from benchmarks.predictors import LABELS
    from nexttoken.engine.heads import LabelSoftmax
    from nexttoken.engine.label_answerer import predict_labels
    from nexttoken.models.load import load_model
    from nexttoken.models.streamed import layer_stream
    from nexttoken.prompts.encode_labels import EncodedPrompt
    from nexttoken.settings import ModelSettings

    rng = np.random.default_rng(0)
    lengths = np.exp(rng.normal(np.log(int(tokens)), 0.4, int(rows))).clip(int(tokens) / 3, 3 * int(tokens)).astype(int)
    ids = [rng.integers(20, 8192, length, dtype=np.int32) for length in lengths]
    prompts = [EncodedPrompt(str(row), None, "", one, False) for row, one in enumerate(ids)]
    start = time.perf_counter()
    settings = ModelSettings(name_or_path=folder, stream_layers=streams == "true")
    model = load_model(settings, range(8192), 2048, torch.bfloat16, device=torch.device("cpu")).eval()
    loaded = time.perf_counter()
    probs = predict_labels(model, LabelSoftmax(), prompts, LABELS, 512).probs
    ended, stream = time.perf_counter(), layer_stream(model)
    read = [line.split()[1] for line in Path("/proc/self/io").read_text().splitlines() if line.startswith("read_bytes")]
    figures = {
        "load_seconds": loaded - start,
        "seconds": ended - start,
        "num_tokens": int(lengths.sum()),
        "peak_mb": status_kb("VmHWM") / 1024,
        "bytes_of_layers": stream.bytes_read if stream else 0,
        "bytes_from_disk": int(read[0]),
    }
    np.save(f"{out}.npy", probs)
    Path(f"{out}.json").write_text(json.dumps(figures))


@contextmanager
def limited(limit_mb: int) -> Iterator[Path]:
    """A new control group with so much memory. Raises UserError where none can be made."""
    for parent, (limit_file, _) in zip(GROUPS, FILES, strict=True):
        folder = parent / f"nexttoken-{os.getpid()}"
        try:
            folder.mkdir()
            (folder / limit_file).write_text(str(limit_mb * 2**20))
        except OSError:
            continue
        try:
            yield folder
        finally:
            folder.rmdir()
        return
    raise UserError("no control group with a memory limit can be made here; run it as root, where /sys/fs/cgroup is")


def run_side(model: Path, streams: bool, given: StreamedArguments, group: Path | None) -> dict[str, Any]:
    """The figures of one side, with its peak of memory in MB. Raises UserError where the process was ended."""
    for path in model.glob("*.safetensors"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    out = model / "answers"

    def join() -> None:
        if group is not None:
            (group / "cgroup.procs").write_text(str(os.getpid()))

    options = [str(model), str(streams).lower(), str(given.rows), str(given.tokens), str(out)]
    process = subprocess.Popen(
        [sys.executable, "-c", SIDE, *options], cwd=ROOT, env=os.environ | FEW_KERNELS, preexec_fn=join
    )
    _, status, used = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise UserError(f"a side ended with status {os.waitstatus_to_exitcode(status)}; -9: limit_mb is too low")
    figures = json.loads(Path(f"{out}.json").read_text())
    figures["cpu_seconds"] = used.ru_utime + used.ru_stime  # of the whole process, which another load does not change
    if group is not None:
        peaks = [group / peak for _, peak in FILES if (group / peak).exists()]
        figures["group_peak_mb"] = int(peaks[0].read_text()) / 2**20 if peaks else None
    return figures | {"probs": np.load(f"{out}.npy")}


def measure(given: StreamedArguments, folder: Path) -> Record:
    """The record of both sides, in alternation."""
    model = folder / "model"
    layers = given.layers or -(-TIMES * given.limit_mb * 2**20 // int(LAYER_MB * 1e6))
    size = write_model(model, layers)
    sides: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for _ in range(given.repeats):
        with limited(given.limit_mb) as group:
            ours = run_side(model, True, given, group)
        peer = run_side(model, False, given, None)
        sides.append((ours, peer))
        print(*[{k: v for k, v in side.items() if k != "probs"} for side in (ours, peer)], sep="\n", flush=True)
    pairs = [tuple(Run(side["seconds"], side["peak_mb"]) for side in pair) for pair in sides]
    last, other = sides[-1]
    facts = {key: value for key, value in last.items() if key != "probs"}
    facts |= {"limit_mb": given.limit_mb, "model_mb": size / 2**20, "layers": layers, "rows": given.rows}
    facts |= {f"in_memory_{key}": value for key, value in other.items() if key != "probs"}
    facts["largest_difference"] = float(np.abs(last["probs"] - other["probs"]).max())
    work = f"{given.rows:,} rows through streamed layers, limit {given.limit_mb} MB"
    return compare(work, "the model in memory", "bfloat16", pairs, kind="time", facts=facts)  # type: ignore[arg-type]


def main(arguments: Sequence[str]) -> None:
    """Raises UserError for an unknown key, and where memory cannot be limited."""
    given = StreamedArguments.parse(arguments)
    with limited(given.limit_mb):
        pass  # before anything is written
    with tempfile.TemporaryDirectory() as folder:
        made = measure(given, Path(folder))
    print(table([made]))
    write_records(given.out, [made])


if __name__ == "__main__":
    run(main, __doc__)
