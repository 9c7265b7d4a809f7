"""A trial of float16, whose largest number is 65,504: real rows have to come out as they do in float32."""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn

from nexttoken.engine.forward.layout import Pieces
from nexttoken.engine.forward.shortcuts import TOLERANCE_16_BIT, evaluating, hidden_states
from nexttoken.engine.non_finite import compute_in_float32, computing_in_float32
from nexttoken.models.precision import autocast_dtype
from nexttoken.models.processes import is_first
from nexttoken.models.sharded import is_sharded

NUM_ROWS = 4
MAX_OVERFLOWING = 0.5  # of the tried rows, where each is run again by itself: beyond it float32 is faster for all

_fits: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()  # by the model that was tried


def fits_float16(model: Any, rows: Sequence[np.ndarray], max_overflowing: float = 0.0) -> bool:
    """False for a model in float16 whose last hidden states are not finite, or not close to float32.

    `rows` are token ids; a few are tried, spread over all, the first time a model is seen. A share of them up to
    `max_overflowing` may be not finite. A line says what was found.
    Models in other dtypes, and sharded ones, are not tried.
    """
    if (
        is_sharded(model)
        or not rows
        or torch.float16 not in (autocast_dtype(model), *{parameter.dtype for parameter in model.parameters()})
    ):
        return True
    if model not in _fits:
        places = np.linspace(0, len(rows) - 1, min(NUM_ROWS, len(rows))).round().astype(int).tolist()
        errors = np.array([_error(model, rows[place]) for place in places])
        finite = np.isfinite(errors)
        _fits[model] = bool((errors[finite] <= TOLERANCE_16_BIT).all() and (~finite).mean() <= max_overflowing)
        if not _fits[model] and is_first():
            print("float16: this model's numbers overflow or differ from float32, so it is computed in float32")
    return _fits[model]


def leave_float16(model: Any, rows: Sequence[np.ndarray], max_overflowing: float = 0.0) -> None:
    """Compute a model in float32 from now on, a layer at a time, where `fits_float16` says so."""
    is_new = model not in _fits
    if not fits_float16(model, rows, max_overflowing) and is_new:
        compute_in_float32(model, ExitStack())


def is_float32_instead(model: nn.Module) -> bool:
    """True for a model in float16 that is computed in float32."""
    return not _fits.get(model, True)


@torch.no_grad()
def _error(model: nn.Module, row: np.ndarray) -> float:
    """The relative distance of a row's last state from that in float32; infinite where it is not finite."""
    with evaluating(model):
        half = _last_state(model, row)
        with computing_in_float32(model):
            exact = _last_state(model, row)
    error = ((half - exact).norm() / exact.norm()).item()
    return error if half.isfinite().all() else math.inf


def _last_state(model: nn.Module, row: np.ndarray) -> torch.Tensor:
    """The last hidden state (H,) of a row's last token, in float32."""
    pieces = Pieces()
    end = (pieces.add(row), len(row) - 1)
    device = next(model.parameters()).device
    return hidden_states(model, pieces.padded().to(device), [end], skips=False)[0].float()
