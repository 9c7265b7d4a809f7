"""Rows whose values are not finite: they are run again in float32, since 16-bit numbers overflow or lose digits."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nexttoken.errors import UserError, first_five
from nexttoken.models.precision import autocast_dtype, compute_in
from nexttoken.models.processes import is_first
from nexttoken.models.sharded import is_sharded

SIXTEEN_BIT = (torch.float16, torch.bfloat16)
MIN_FINITE = 0.5  # of the rows; a model with fewer is broken

RunRow = Callable[[nn.Module, Any], np.ndarray]  # a model and a row -> its values (C,)


@torch.inference_mode()
def run_again_in_float32(model: nn.Module, rows: Sequence[Any], values: np.ndarray, run_row: RunRow) -> int:
    """Overwrite those of `values` (N, C) that are not finite by float32 ones; return the number of rows mended.

    Rows stay as they are where float32 is no better, a layer refuses it, or memory runs out.
    """
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1)).tolist()
    if not bad or is_sharded(model) or not _computes_in_16_bit(model):
        return 0
    with computing_in_float32(model), suppress(RuntimeError):
        for row in bad:
            values[row] = run_row(model, rows[row])
    mended = [rows[row].id for row in bad if np.isfinite(values[row]).all()]
    if mended and is_first():
        print(f"float32: {len(mended)} rows were run again, since 16 bit gave no finite numbers ({first_five(mended)})")
    return len(mended)


def fill_with_prior(rows: Sequence[Any], probs: np.ndarray) -> int:
    """Overwrite those of `probs` (N, K) that are not finite by the other rows' mean; return the number of such rows.

    Raises UserError, naming ids, where most rows are not finite.
    """
    finite = np.isfinite(probs).all(axis=1)
    if finite.all():
        return 0
    bad = [rows[row].id for row in np.flatnonzero(~finite).tolist()]
    if finite.mean() < MIN_FINITE:
        raise UserError(describe_non_finite(bad))
    prior = probs[finite].mean(axis=0)
    for row in np.flatnonzero(~finite).tolist():
        own = np.where(np.arange(len(prior)) < (rows[row].num_options or len(prior)), prior + 1e-9, 0.0)
        probs[row] = own / own.sum()
    if is_first():
        print(f"prior: {describe_non_finite(bad)}; they have the mean probabilities of the other rows")
    return len(bad)


def describe_non_finite(ids: Sequence[str]) -> str:
    return f"the logits are not finite for {len(ids)} rows ({first_five(ids)}); try model.dtype=float32"


def _computes_in_16_bit(model: nn.Module) -> bool:
    return autocast_dtype(model) is not None or any(p.dtype in SIXTEEN_BIT for p in model.parameters())


@contextmanager
def computing_in_float32(model: Any) -> Iterator[None]:
    """Within this context a model computes as `compute_in_float32` says."""
    with ExitStack() as undo:
        compute_in_float32(model, undo)
        yield


def compute_in_float32(model: Any, undo: ExitStack) -> None:
    """Let each layer cast its own 16-bit weights to float32 while it runs, without autocast, until `undo` is closed."""
    undo.callback(compute_in, model, autocast_dtype(model))
    compute_in(model, None)
    for module in model.modules():
        if "compute_dtype" in vars(module):  # 4-bit layers
            undo.callback(setattr, module, "compute_dtype", module.compute_dtype)
            module.compute_dtype = torch.float32
        if any(p.dtype in SIXTEEN_BIT for p in module.parameters(recurse=False)):
            for handle in _cast_while_running(module):
                undo.callback(handle.remove)


def _cast_while_running(module: nn.Module) -> list[Any]:
    own: list[tuple[nn.Parameter, Tensor]] = []

    def cast(*_: Any) -> None:
        own[:] = [(p, p.data) for p in module.parameters(recurse=False) if p.dtype in SIXTEEN_BIT]
        with torch.inference_mode(False):
            for parameter, data in own:
                parameter.data = data.float()

    def restore(*_: Any) -> None:
        for parameter, data in own:
            parameter.data = data
        own.clear()

    return [module.register_forward_pre_hook(cast), module.register_forward_hook(restore, always_call=True)]
