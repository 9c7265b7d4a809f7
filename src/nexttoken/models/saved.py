"""Models on disk: what a fold saves (all weights, or an adapter that names its base), and quantised copies."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import SafetensorError
from torch import Tensor, nn

from nexttoken.data.files import read_json, whole_file, write_json
from nexttoken.data.secrets import without_secrets
from nexttoken.data.whole_files import whole_folder
from nexttoken.errors import FAILED_FILE, FULL_DISK, UserError
from nexttoken.models import adapters
from nexttoken.models import base_model as base
from nexttoken.models.load import load_model, load_tokenizer, resolve
from nexttoken.models.named_weights import NAMED
from nexttoken.models.processes import choose_device
from nexttoken.models.quantized import describe, num_weights, saved_quantization
from nexttoken.prompts.encode_labels import Encoded
from nexttoken.prompts.encoded import EncodedTexts
from nexttoken.prompts.label_tokens import LabelTokens
from nexttoken.settings import ModelSettings, Settings

LICENCES = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")
PACKAGES = ("bitsandbytes", "peft", "transformers", "torch")
TOKEN_COLUMNS = ["id", "num_tokens", "num_user_tokens", "num_assistant_tokens"]


def save_trained(
    fold_dir: Path, settings: Settings, model: Any, tokenizer: Any, weights: dict[str, Tensor] | None = None
) -> None:
    """Write `model/` (all weights and the tokenizer), or `adapter/`, which names its untrained base without a copy.

    `weights` are the gathered ones of a sharded model. Each folder appears complete or not at all.
    """
    if not keeps_base(settings):
        with model_folder(fold_dir / "model") as part:
            save_whole(part, model, tokenizer, weights)
        return
    with model_folder(fold_dir / "adapter") as part:
        if adapters.trained_adapter(settings):
            adapters.save_adapter(model, part, weights)
        dtype = str(next(model.parameters()).dtype) if choose_device().type == "cpu" else ""
        replace(base.identify(settings.model, tokenizer), dtype=dtype.removeprefix("torch.")).save(part)


def save_whole(folder: Path, model: nn.Module, tokenizer: Any, weights: dict[str, Tensor] | None = None) -> None:
    from transformers.utils import logging

    logging.disable_progress_bar()
    model.save_pretrained(folder, state_dict=weights)  # type: ignore[operator]
    tokenizer.save_pretrained(folder)


def keeps_base(settings: Settings) -> bool:
    """True where the weights of a pretrained model are not trained."""
    untrained = settings.adapter is not None or settings.trainer.max_epochs == 0
    return settings.model.name_or_path is not None and untrained


@contextmanager
def model_folder(folder: Path) -> Iterator[Path]:
    """`whole_folder` for weights and a tokenizer. Raises UserError where they cannot be written."""
    try:
        with whole_folder(folder) as part:
            yield part
    except Exception as error:
        if not (
            isinstance(error, SafetensorError) or FAILED_FILE.search(str(error))
        ):  # tokenizers has no error of its own
            raise
        raise UserError(f"{folder} could not be written ({error}); {FULL_DISK}") from None


def save_encoding(fold_dir: Path, train: Encoded | EncodedTexts) -> None:
    """Write the label tokens (labels.json), or the token counts of the training texts (tokens.csv)."""
    if isinstance(train, Encoded):
        save_labels(fold_dir / "labels.json", train.labels)
        return
    sizes = ((one.id, len(one.token_ids), one.num_targets) for one in train.prompts)
    rows = [(name, length, length - num_targets, num_targets) for name, length, num_targets in sizes]
    with whole_file(fold_dir / "tokens.csv") as part:
        pd.DataFrame(rows, columns=TOKEN_COLUMNS).to_csv(part, index=False)


def save_labels(path: Path, labels: LabelTokens) -> None:
    write_json(labels.as_dict(), path)


def load_labels(path: Path) -> LabelTokens:
    """Read the file of `save_labels`. Raises UserError for any other file."""
    saved = read_json(path)
    try:
        nested = {name: tuple(map(tuple, saved[name])) for name in ("continuations", "pieces")}
        labels = LabelTokens(labels=tuple(saved["labels"]), num_rejoined=saved["num_rejoined"], **nested)
        if not len(labels.labels) == len(labels.continuations) == len(labels.pieces):
            raise ValueError("its lists have different lengths")
        return labels
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} does not hold label tokens ({error!r}); expected a file written by train.py") from None


def save_quantized(settings: Settings, folder: Path) -> int:
    """Write the quantised base of `settings` with its tokenizer; return the number of its weights.

    base.json names the original, so that an adapter of one is accepted on the other.
    Raises UserError where the weights are quantised already.
    """
    assert settings.quantization is not None
    spec = resolve(settings)
    if already := saved_quantization(spec.config):
        raise UserError(f"{settings.model.name_or_path} holds weights in {describe(already)} already; name whole ones")
    tokenizer = load_tokenizer(settings.model, ())
    origin, quantization = base.identify(settings.model, tokenizer), settings.quantization
    model = load_model(settings.model, tokenizer, settings.max_tokens, spec.dtype, quantization, config=spec.config)
    method = describe(quantization)
    facts = {
        "made from": origin.name + (f", revision {settings.model.revision}" if settings.model.revision else ""),
        "method": f"{method} (bitsandbytes) of all linear layers but the output head",
        "other weights": str(spec.dtype).removeprefix("torch."),
        "use": f"model.name_or_path={folder}",
    }
    with model_folder(folder) as part:
        save_whole(part, model, tokenizer)
        copy_licences(settings.model, part)
        replace(origin, stored=method, files=base.fingerprint(part)).save(part)
        write_note(part, f"{origin.name} in {quantization.bits} bit", origin.name, facts)
    return sum(map(num_weights, model.parameters()))


def write_note(folder: Path, title: str, base_name: str, facts: Mapping[str, str]) -> None:
    """Write README.md: the model's content and licence, the way it was made, and the versions used."""
    from huggingface_hub import constants

    is_local = base_name in NAMED or Path(base_name).expanduser().exists()
    page = "see the files beside it." if is_local else without_secrets(f"{constants.ENDPOINT}/{base_name}")
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    lines = [f"- {name}: {text}" for name, text in {**facts, "versions": versions}.items()]
    licence = f"The licence of {base_name} applies to these weights, too: {page}"
    text = "\n".join([f"# {title}", "", licence, "", *lines]) + "\n"
    (folder / "README.md").write_text(text, encoding="utf-8")


def copy_licences(settings: ModelSettings, folder: Path) -> None:
    """Copy the licence files of the base, as most licences require."""
    source = base.weights_folder(settings)
    for path in {path for pattern in LICENCES for path in source.glob(pattern) if path.is_file()}:
        shutil.copyfile(path, folder / path.name)
