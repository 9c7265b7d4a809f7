"""A trained model as files: safetensors, tokenizer and label tokens, written whole and read back as an answerer."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nexttoken.errors import UserError
from nexttoken.files import read_json, write_json
from nexttoken.models.answer import LabelAnswerer
from nexttoken.models.encode import Encoder
from nexttoken.models.labels import LabelTokens
from nexttoken.models.load import load_model, load_tokenizer, within_context
from nexttoken.prompts import Prompt
from nexttoken.settings import ModelSettings


def save_model(folder: Path, model: nn.Module, tokenizer: Any) -> None:
    """Write weights and tokenizer into `folder`, which appears whole or not at all."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    model.save_pretrained(part)  # type: ignore[operator]
    tokenizer.save_pretrained(part)
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(part, folder)


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
    tokenizer = load_tokenizer(saved, ())
    model = load_model(saved, tokenizer, max_tokens).to(choose_device())
    encoder = Encoder(tokenizer, prompt, within_context(model, max_tokens))
    return LabelAnswerer(model, encoder, load_labels(fold_dir / "labels.json"), batch_tokens)


def choose_device() -> torch.device:
    """The first GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
