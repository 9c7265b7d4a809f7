"""Hidden states of a frozen model, averaged over a span of each text, and a cache of them.

The cache is in the user's cache folder, as that of tokens: folds, seeds and predictions read each text only once. Its
key is the model, the layer, the precision and the text's tokens.
"""

import hashlib
import time
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nexttoken.data.files import cache_dir
from nexttoken.data.whole_files import whole_file
from nexttoken.engine.batches import token_batches
from nexttoken.engine.forward.last_layer import decoder, decoder_layers
from nexttoken.engine.run_batches import run_batches
from nexttoken.errors import UserError, first_five
from nexttoken.models.memory import advice_on_memory
from nexttoken.models.precision import autocast_dtype, computing
from nexttoken.models.streamed import layer_stream
from nexttoken.prompts.encode_spans import Span
from nexttoken.prompts.token_cache import delete_oldest

SAVE_SECONDS = 30.0  # between two files of the cache: so much work is lost by a kill
KEY = np.dtype("S32")  # a hash in hexadecimal digits


class _Reached(Exception):
    pass


def states_after(model: nn.Module, layer: int, token_ids: Tensor) -> Tensor:
    """Hidden states (B, T, H) after the first `layer` layers; those above are not computed."""
    found: list[Tensor] = []

    def stop(_: nn.Module, __: Any, output: Any) -> None:
        found.append(output if isinstance(output, Tensor) else output[0])
        raise _Reached

    handle = decoder_layers(model)[layer - 1].register_forward_hook(stop)
    try:
        with suppress(_Reached), computing(model):
            decoder(model)(input_ids=token_ids, use_cache=False)
    finally:
        handle.remove()
    return found[0]


def span_states(model: nn.Module, layer: int, spans: Sequence[Span], with_last: bool) -> np.ndarray:
    """Mean states of the spans (N, H), followed by those of their last tokens (N, 2H) where `with_last`.

    Rows are padded at their ends, which no earlier token sees.
    """
    longest = max(len(span.token_ids) for span in spans)
    padded = [np.pad(span.token_ids, (0, longest - len(span.token_ids)), mode="edge") for span in spans]
    device = next(model.parameters()).device
    states = states_after(model, layer, torch.tensor(np.stack(padded), dtype=torch.long, device=device))
    rows = []
    for own, span in zip(states, spans, strict=True):
        read = own[span.start : len(span.token_ids)].float()
        rows.append(torch.cat([read.mean(0), read[-1]]) if with_last else read.mean(0))
    return torch.stack(rows).double().cpu().numpy()


class StateReader:
    """Spans in, their states out: (N, D) float32. `made_by` identifies the weights.

    Raises UserError, naming ids, for states that are not finite.
    """

    def __init__(self, model: nn.Module, batch_tokens: int, layer: int, with_last: bool, made_by: str) -> None:
        if layer_stream(model) is not None:
            raise UserError("head=probe reads the states of one layer; use model.stream_layers=false")
        self.model, self.batch_tokens, self.layer, self.with_last = model, batch_tokens, layer, with_last
        dtypes = (next(model.parameters()).dtype, autocast_dtype(model), with_last, version("transformers"))
        name = hashlib.sha256(repr((made_by, layer, *dtypes)).encode()).hexdigest()[:32]
        self.cache = StateCache(cache_dir() / "states" / name)

    def __call__(self, spans: Sequence[Span]) -> np.ndarray:
        keys = list(map(_key, spans))
        known = self.cache.load(keys)
        new = {key: span for key, span in zip(keys, spans, strict=True) if key not in known}
        if new:
            known |= self._read(new)
        if bad := [span.id for key, span in zip(keys, spans, strict=True) if not np.isfinite(known[key]).all()]:
            raise UserError(f"the hidden states of {first_five(bad)} are not finite; use model.dtype=float32")
        return np.stack([known[key] for key in keys])

    def _read(self, new: dict[bytes, Span]) -> dict[bytes, np.ndarray]:
        """The states of texts that are not in the cache, which are saved as they come."""
        keys, spans = list(new), list(new.values())
        lengths = [len(span.token_ids) for span in spans]
        places = {id(span): key for key, span in new.items()}
        writer = self.cache.writer()

        def run_batch(model: nn.Module, batch: Sequence[Span]) -> np.ndarray:
            states = span_states(model, self.layer, batch, self.with_last)
            writer.add([places[id(span)] for span in batch], states.astype(np.float32))
            return states

        batches = token_batches(lengths, self.batch_tokens)
        try:
            with advice_on_memory(self.batch_tokens):
                states, _ = run_batches(self.model, spans, lengths, batches, run_batch, "read")
        finally:
            writer.flush()
        return dict(zip(keys, states.astype(np.float32), strict=True))


def _key(span: Span) -> bytes:
    """Hash of a span's tokens: the same text has the same key in any batch and row."""
    content = span.start.to_bytes(8, "little") + span.token_ids.astype("<i4").tobytes()
    return hashlib.sha256(content).hexdigest()[: KEY.itemsize].encode()


class StateCache:
    """Files of states (N, D) float32 by their keys (N,). Each appears whole or not at all; a damaged one is ignored."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """The states of those keys that are saved."""
        wanted = set(keys)
        found: dict[bytes, np.ndarray] = {}
        for path in sorted(self.folder.glob("*.npz")):
            try:
                with np.load(path, allow_pickle=False) as saved:
                    own, states = saved["keys"].tolist(), saved["states"]
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                continue
            with suppress(OSError):  # another user's file
                path.touch()
            found |= {key: states[place] for place, key in enumerate(own) if key in wanted}
        return found

    def writer(self) -> "StateWriter":
        return StateWriter(self.folder)


class StateWriter:
    """Saves states in files of what came within SAVE_SECONDS; without a place for them it says so once."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._lock, self._is_refused = folder, Lock(), False
        self._start_anew()

    def add(self, keys: Sequence[bytes], states: np.ndarray) -> None:
        """Take in the states (n, D) of n keys; threads may call it at once."""
        with self._lock:
            self._keys += keys
            self._states.append(states)
            if time.monotonic() - self._since > SAVE_SECONDS:
                self._write()

    def flush(self) -> None:
        """Write what has not been saved."""
        with self._lock:
            self._write()

    def _start_anew(self) -> None:
        self._keys: list[bytes] = []
        self._states: list[np.ndarray] = []
        self._since = time.monotonic()

    def _write(self) -> None:
        if self._keys and not self._is_refused:
            keys = np.array(self._keys, KEY)
            path = self.folder / f"{hashlib.sha256(keys.tobytes()).hexdigest()[:32]}.npz"
            try:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                with whole_file(path) as part, part.open("wb") as file:
                    np.savez(file, keys=keys, states=np.concatenate(self._states))
                delete_oldest(self.folder.parent.glob("*/*.npz"), path)
            except OSError as error:
                self._is_refused = True
                print(f"states are not cached: {self.folder}: {error.strerror or error}; set NEXTTOKEN_CACHE")
        self._start_anew()
