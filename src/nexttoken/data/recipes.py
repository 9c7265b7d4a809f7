"""Values of a configuration that follow from what is trained, as `${by_weights:...}` and `${alpha_of:...}`."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def by_weights(scratch: Any, pretrained: Any, adapter: Any, *, _root_: Mapping[str, Any]) -> Any:
    """The value for what is trained: a model from scratch, all pretrained weights, or an adapter beside them."""
    full = pretrained if _root_["model"]["name_or_path"] or _root_["model"].get("from_run") else scratch
    return adapter if _root_["adapter"] else full


def alpha_of(learning_rate: float) -> int:
    """LoRA's alpha between those where published runs were best, interpolated on logarithmic axes."""
    rates, alphas = np.log(np.array([[2e-5, 6e-5, 2e-4], [192, 64, 4]]))
    return round(np.exp(np.interp(np.log(learning_rate), rates, alphas)))
