"""Published dimensions of the shipped models, by which a run is planned without the hub."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from nexttoken.models.hub import find_model
from nexttoken.models.load import load_config
from nexttoken.models.named_weights import NAMED, named_folder
from nexttoken.settings import ModelSettings

FILE = Path(__file__).with_name("published_shapes.yaml")
SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")


@cache
def published_shapes() -> dict[str, dict[str, Any]]:
    """The dimensions of each model by its name, with the keys of transformers' config.json."""
    models = yaml.safe_load(FILE.read_text(encoding="utf-8"))["models"]
    return {
        name: {key: value for key, value in known.items() if key != "sizes"}
        | dict(zip(SIZES, known["sizes"], strict=False))
        for name, known in models.items()
    }


def published_config(name: str, **changes: Any) -> Any:
    """The transformers configuration of a model's language part, with its vision tower if it has one.

    `changes` are those of the language part. Raises KeyError for a model whose dimensions are not in the package.
    """
    from transformers import AutoConfig

    text = {**published_shapes()[name], **changes}
    kind, vision = text.pop("model_type"), text.pop("vision", None)
    if vision is None:
        return AutoConfig.for_model(kind, **text)
    return AutoConfig.for_model(kind, text_config=text, vision_config=dict(vision))


def config_for_plan(settings: ModelSettings, max_tokens: int = 0) -> Any:
    """The configuration of the model that a plan is made for; the hub is not asked where this machine knows it.

    A folder's or the hub cache's config.json comes first, then the published dimensions, which a line says, then the
    hub. Raises UserError as `load_config` does.
    """
    name = settings.name_or_path
    if name is None or (name not in NAMED and find_model(name)) or (name in NAMED and named_folder(name).is_dir()):
        return load_config(settings, max_tokens)
    if folder := cached_folder(settings):
        return load_config(settings.model_copy(update={"name_or_path": str(folder), "revision": None}))
    if name not in published_shapes():
        return load_config(settings, max_tokens)
    print(f"{name}: planned by its published dimensions, its config.json is not on this machine")
    return published_config(name)


def cached_folder(settings: ModelSettings) -> Path | None:
    """The folder of a hub model's config.json in the hub's cache; None where it was never fetched."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(str(settings.name_or_path), "config.json", revision=settings.revision)
    except HFValidationError:  # no name of the hub: the error comes with the fix when it is loaded
        return None
    return Path(found).parent if isinstance(found, str) else None
