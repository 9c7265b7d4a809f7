"""Compare prediction with llama.cpp: the same weights as GGUF, the same prompts in batches, last logits only.

pip install -e .[llama]                          the Python binding of llama.cpp, which needs a compiler
python -m benchmarks.llama_cpp                   ours in fp32 against its F32, BF16 and Q8_0
python -m benchmarks.llama_cpp cases=bf16 rows=8
python -m benchmarks.llama_cpp size=tiny repeats=2

  cases         f32, bf16, q8_0: the number format of llama.cpp's matrices
  size          full (24M body, 8k vocabulary), or a tiny model and a few short rows
  rows          prompts
  repeats       pairs of runs that are counted
  batch_tokens  of our batches; llama.cpp tries its own and keeps the fastest
  out           JSON, the plot beside it; benchmarks/results/llama_cpp.json
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import Case, Options, command
from benchmarks.sides import Answers, Side, Work
from benchmarks.workload import LABEL_IDS, REALISTIC, Workload, softmax
from nexttoken.commands.arguments import run
from nexttoken.data.packages import require

SIZES = (256, 512, 1024, 2048)  # tokens of a call; the longest prompt always fits
MAX_SEQUENCES = 32
TITLE = "predict, realistic head share (24M body, 8k vocabulary)"
BUFFERS = "its buffers are made beforehand and are not in its extra memory"
FORMATS = {"f32": ("F32", 1e-2), "bf16": ("BF16", 0.05), "q8_0": ("Q8_0", 0.05)}

# Names of weights in GGUF, and in transformers.
LAYER = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
LAYER |= {f"attn_{name}": f"self_attn.{name}_proj" for name in "qkv"} | {"attn_output": "self_attn.o_proj"}
LAYER |= {f"ffn_{name}": f"mlp.{name}_proj" for name in ("gate", "up", "down")}
ENDS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


class LlamaCpp(Work):
    """llama.cpp by its C interface: prompts are sequences of a batch; logits of each prompt's last token."""

    def __init__(self, workload: Workload, number_format: str) -> None:
        import llama_cpp
        import torch

        self.api, self.workload = llama_cpp, workload
        self.silent = llama_cpp.llama_log_callback(lambda *_: None)  # kept: C holds no reference
        llama_cpp.llama_log_set(self.silent, None)
        with tempfile.TemporaryDirectory(prefix="nexttoken-") as folder:
            path = Path(folder) / "model.gguf"
            write_gguf(workload.model(), path, number_format)
            options = llama_cpp.llama_model_default_params()
            self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), options)
        self.longest, self.threads = max(map(len, workload.prompts)), torch.get_num_threads()
        self.exact = number_format == "F32"
        self.open(512)

    def open(self, size: int) -> None:
        """Make a context for calls of `size` tokens, or of the longest prompt if that is longer."""
        self.size = max(size, self.longest)
        options = self.api.llama_context_default_params()
        options.n_ctx = options.n_batch = self.size
        options.n_ubatch = min(size, self.size)
        options.n_seq_max = MAX_SEQUENCES
        options.kv_unified = True
        options.n_threads = options.n_threads_batch = self.threads
        if self.exact:
            options.type_k = options.type_v = self.api.GGML_TYPE_F32
        self.context = self.api.llama_init_from_model(self.model, options)
        self.batch = self.api.llama_batch_init(self.size, 0, 1)

    def settle(self) -> str:
        """Try calls of several sizes, keep the fastest, and return a sentence with all times."""
        seconds = {}
        for size in SIZES:
            self.close()
            self.open(size)
            self.run()
            start = time.perf_counter()
            self.run()
            seconds[size] = time.perf_counter() - start
        best = min(seconds, key=lambda size: seconds[size])
        self.close()
        self.open(best)
        tried = ", ".join(f"{size}: {value:.2f} s" for size, value in seconds.items())
        return f"peer at its best: calls of {best} tokens (tried {tried})"

    def close(self) -> None:
        self.api.llama_batch_free(self.batch)
        self.api.llama_free(self.context)

    def run(self) -> Answers:
        prompts = self.workload.prompts
        scores = np.empty((len(prompts), len(LABEL_IDS)))
        for rows in self.calls():
            places = self.fill([prompts[row] for row in rows])
            self.api.llama_memory_clear(self.api.llama_get_memory(self.context), False)
            if status := self.api.llama_decode(self.context, self.batch):
                raise RuntimeError(f"llama_decode returns {status}")
            for row, place in zip(rows, places, strict=True):
                logits = self.api.llama_get_logits_ith(self.context, place)
                scores[row] = [logits[label] for label in LABEL_IDS]
        return Answers(softmax(scores))

    def calls(self) -> Iterator[list[int]]:
        """Rows of each call, longest first."""
        lengths, total = [len(prompt) for prompt in self.workload.prompts], 0
        rows: list[int] = []
        for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
            if rows and (total + lengths[row] > self.batch_limit or len(rows) == MAX_SEQUENCES):
                yield rows
                rows, total = [], 0
            rows.append(row)
            total += lengths[row]
        yield rows

    @property
    def batch_limit(self) -> int:
        return int(self.api.llama_n_ubatch(self.context))

    def fill(self, prompts: list[list[int]]) -> list[int]:
        """Write prompts into the batch; return the indices of their last tokens."""
        lengths = [len(prompt) for prompt in prompts]
        total, batch = sum(lengths), self.batch
        fields = (getattr(batch, name) for name in ("token", "pos", "n_seq_id", "logits"))
        tokens, positions, counts, has_logits = (np.ctypeslib.as_array(field, shape=(total,)) for field in fields)
        tokens[:] = np.concatenate(prompts)
        positions[:] = np.concatenate([np.arange(length) for length in lengths])
        for place, sequence in enumerate(np.repeat(np.arange(len(prompts)), lengths).tolist()):
            batch.seq_id[place][0] = sequence
        last = np.cumsum(lengths) - 1
        counts[:], has_logits[:] = 1, 0
        has_logits[last] = 1
        batch.n_tokens = total
        return last.tolist()


def write_gguf(model: Any, path: Path, number_format: str) -> None:
    """Write a LlamaForCausalLM as GGUF, without a vocabulary: matrices in `number_format`, norms in F32."""
    import gguf

    config, weights = model.config, {name: p.detach().float().numpy() for name, p in model.named_parameters()}
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("no_vocab")
    names = dict(ENDS)
    for layer in range(config.num_hidden_layers):
        names |= {f"blk.{layer}.{short}": f"model.layers.{layer}.{name}" for short, name in LAYER.items()}
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    matrices = gguf.GGMLQuantizationType[number_format]
    for name, source in names.items():
        weight = weights[f"{source}.weight"]
        if number_of_heads := heads.get(name.split(".")[-1]):
            weight = interleaved(weight, number_of_heads)
        kind = matrices if weight.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(f"{name}.weight", gguf.quants.quantize(weight, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows in llama.cpp's order: its rotary embedding pairs neighbours, that of transformers the halves of a head."""
    split = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2).reshape(weight.shape))


def cases(options: Options) -> dict[str, Case]:
    work = options.workload(REALISTIC, 48, rehearsed=6, alike=8)
    ours = options.side("predictors:Predict", work)
    fields: dict[str, Any] = {"settles": True, "note": BUFFERS, "packages": ("llama_cpp_python",)}
    cases = {}
    for name, (number_format, tolerance) in FORMATS.items():
        peer = Side("benchmarks.llama_cpp:LlamaCpp", {"workload": work, "number_format": number_format})
        precision = f"fp32 against {number_format}"
        cases[name] = Case(TITLE, "llama.cpp", precision, work, ours, peer, tolerance=tolerance, **fields)
    return cases


def main(arguments: Sequence[str]) -> None:
    require("benchmarks.llama_cpp", "llama_cpp")
    command("llama_cpp", cases, arguments)


if __name__ == "__main__":
    run(main, __doc__)
