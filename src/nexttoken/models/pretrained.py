"""Tokenizers and configurations of saved models, loaded without torch."""

from pathlib import Path
from typing import Any

from nexttoken.errors import UserError
from nexttoken.models.hub import from_hub, locate, refuse_giant
from nexttoken.settings import ModelSettings


def load_pretrained_tokenizer(settings: ModelSettings) -> Any:
    """The tokenizer of `settings.name_or_path`. Raises UserError for one that is missing, broken or not a fast one."""
    from transformers import AutoTokenizer

    tokenizer = from_pretrained(AutoTokenizer, settings)
    if not tokenizer.is_fast:
        source = settings.name_or_path
        raise UserError(f"{source} has no fast tokenizer (tokenizer.json); convert it with transformers' AutoTokenizer")
    if not from_hub(lambda: tokenizer("a", add_special_tokens=False)["input_ids"], settings):  # its settings may be odd
        raise UserError(f"{settings.name_or_path} has a tokenizer that reads no text; give a model with a complete one")
    return tokenizer


def from_pretrained(kind: Any, settings: ModelSettings, **options: Any) -> Any:
    """Call `kind.from_pretrained` for the model that `settings` name."""
    source = locate(str(settings.name_or_path))
    refuse_giant(Path(source))
    options |= {"revision": settings.revision, "trust_remote_code": settings.trust_remote_code}
    return from_hub(lambda: kind.from_pretrained(source, **options), settings)
