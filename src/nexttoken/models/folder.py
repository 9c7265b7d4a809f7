"""A trained model as files: safetensors, tokenizer and label tokens, written whole and read back as an answerer."""

import os
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from nexttoken.errors import UserError
from nexttoken.files import read_json, write_json
from nexttoken.models.answer import LabelAnswerer
from nexttoken.models.encode import Encoder
from nexttoken.models.labels import LabelTokens
from nexttoken.models.load import choose_device, load_model, load_tokenizer, within_context
from nexttoken.prompts import Prompt
from nexttoken.settings import ModelSettings

FILES = ("config.json", "model.safetensors", "tokenizer.json")


def save_model(folder: Path, model: nn.Module, tokenizer: Any) -> None:
    """Write weights and tokenizer into `folder`, which appears whole or not at all."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        model.save_pretrained(part)  # type: ignore[operator]
        tokenizer.save_pretrained(part)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(part, folder)
    except SafetensorError as error:
        raise UserError(f"{folder} could not be written ({error}); is the disk full?") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def save_labels(path: Path, labels: LabelTokens) -> None:
    write_json(labels.as_dict(), path)


def load_labels(path: Path) -> LabelTokens:
    """Read what `save_labels` wrote. Raises UserError for any other file."""
    saved = read_json(path)
    try:
        nested = {name: tuple(map(tuple, saved[name])) for name in ("continuations", "pieces")}
        return LabelTokens(labels=tuple(saved["labels"]), num_rejoined=saved["num_rejoined"], **nested)
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} does not hold label tokens ({error!r}); expected a file written by train.py") from None


def load_answerer(
    fold_dir: Path, settings: ModelSettings, prompt: Prompt, max_tokens: int, batch_tokens: int
) -> LabelAnswerer:
    """Rebuild what a finished fold asked with. Raises UserError when its files are missing or broken."""
    saved = settings.model_copy(update={"name_or_path": str(fold_dir / "model"), "revision": None})
    if missing := [name for name in FILES if not (fold_dir / "model" / name).exists()]:
        raise UserError(f"{fold_dir / 'model'} has no {', '.join(missing)}; train this fold again with overwrite=true")
    tokenizer = load_tokenizer(saved, ())
    model = load_model(saved, tokenizer, max_tokens).to(choose_device())
    encoder = Encoder(tokenizer, prompt, within_context(saved, max_tokens))
    return LabelAnswerer(model, encoder, load_labels(fold_dir / "labels.json"), batch_tokens)
