"""The published dimensions of every model in conf/model, as the transformers configurations that build them.

A factory takes keyword changes, so that `SHAPES["gemma2_9b"](num_hidden_layers=2)` is the same model with two layers.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import yaml

from nexttoken.models.published_shapes import published_config, published_shapes
from support.composed import CONF

_FILES = {
    yaml.safe_load(path.read_text(encoding="utf-8"))["model"]["name_or_path"]: path.stem
    for path in CONF.glob("model/*.yaml")
    if path.stem not in ("base", "scratch")
}
SHAPES: dict[str, Callable[..., Any]] = {
    _FILES[name]: partial(published_config, name) for name in published_shapes() if name in _FILES
}
