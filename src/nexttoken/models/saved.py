"""What a fold leaves of its model: whole weights, or an adapter that names its base; and what of it may be used."""

import csv
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor, nn

from nexttoken.data.files import read_json, whole_file, write_json
from nexttoken.errors import UserError
from nexttoken.models import adapters
from nexttoken.models import base_model as base
from nexttoken.models.load import choose_device, load_model, load_tokenizer, resolve
from nexttoken.models.quantized import describe, num_weights, saved_quantization
from nexttoken.prompts.encode_labels import Encoded
from nexttoken.prompts.encoded import EncodedTexts
from nexttoken.prompts.label_tokens import LabelTokens
from nexttoken.settings import ModelSettings, Settings

LICENCES = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")
PACKAGES = ("bitsandbytes", "peft", "transformers", "torch")
WHOLE = ("config.json", "tokenizer.json")


def save_trained(
    fold_dir: Path, settings: Settings, model: Any, tokenizer: Any, weights: dict[str, Tensor] | None = None
) -> None:
    """Write `model/` (whole weights and tokenizer), or `adapter/`; a base that was not trained is named, never copied.

    `weights` are those of a sharded model, gathered.
    Each folder appears whole or not at all.
    """
    if keeps_base(settings):
        with whole_folder(fold_dir / "adapter") as part:
            if settings.adapter is not None and settings.trainer.max_epochs:
                adapters.save_adapter(model, part, weights)
            base.identify(settings.model, tokenizer).save(part)
        return
    with whole_folder(fold_dir / "model") as part:
        save_whole(part, model, tokenizer, weights)


def save_whole(folder: Path, model: nn.Module, tokenizer: Any, weights: dict[str, Tensor] | None = None) -> None:
    from transformers.utils import logging

    logging.disable_progress_bar()
    model.save_pretrained(folder, state_dict=weights)  # type: ignore[operator]
    tokenizer.save_pretrained(folder)


def keeps_base(settings: Settings) -> bool:
    """True where a pretrained model's own weights are left as they came."""
    untrained = settings.adapter is not None or settings.trainer.max_epochs == 0
    return settings.model.name_or_path is not None and untrained


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    part.mkdir(parents=True)
    try:
        yield part
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(part, folder)
    except SafetensorError as error:
        raise UserError(f"{folder} could not be written ({error}); is the disk full?") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def save_rows_read(fold_dir: Path, train: Encoded | EncodedTexts) -> None:
    """Write what later answers have to agree with (labels.json), or the tokens of the training texts (tokens.csv)."""
    if isinstance(train, Encoded):
        save_labels(fold_dir / "labels.json", train.labels)
        return
    with whole_file(fold_dir / "tokens.csv") as part, part.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(("id", "num_tokens", "num_user_tokens", "num_assistant_tokens"))
        for row in train.prompts:
            lines.writerow((row.id, len(row.token_ids), len(row.token_ids) - row.num_targets, row.num_targets))


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


def place(model: nn.Module) -> nn.Module:
    """The model on this process's device, where training leaves it no longer: Lightning moves it to the CPU."""
    return model.to(choose_device())


def refuse_other_base(folder: Path, settings: Settings, here: base.Base) -> None:
    """Raise UserError where `here`, the base that `settings` name, is not the one that `folder` belongs to."""
    trained_on = base.read_base(folder)
    base.refuse_other(trained_on, here, folder)
    if settings.quantization is None:
        base.refuse_other_storage(trained_on, here, folder)


def refuse_missing(folder: Path, names: tuple[str, ...]) -> None:
    if missing := [name for name in names if not (folder / name).exists()]:
        raise UserError(f"{folder} has no {', '.join(missing)}; train this fold again with overwrite=true")


def save_quantized(settings: Settings, folder: Path) -> int:
    """Write the base that `settings` name, quantised as they say, with its tokenizer; return how many weights it has.

    base.json says which model it is a copy of, so that an adapter of the one is accepted on the other.
    Raises UserError where the weights are quantised already.
    """
    assert settings.quantization is not None
    spec = resolve(settings)
    if already := saved_quantization(spec.config):
        raise UserError(f"{settings.model.name_or_path} holds weights in {describe(already)} already; name whole ones")
    tokenizer = load_tokenizer(settings.model, ())
    origin = base.identify(settings.model, tokenizer)
    quantization = settings.quantization
    model = load_model(settings.model, tokenizer, settings.max_tokens, spec.dtype, quantization, config=spec.config)
    method = describe(quantization)
    facts = {
        "made from": origin.name + (f", revision {settings.model.revision}" if settings.model.revision else ""),
        "method": f"{method} (bitsandbytes) of all linear layers but the output head",
        "other weights": str(spec.dtype).removeprefix("torch."),
        "use": f"model.name_or_path={folder}",
    }
    with whole_folder(folder) as part:
        save_whole(part, model, tokenizer)
        copy_licences(settings.model, part)
        origin.as_stored(method).save(part)
        write_note(part, f"{origin.name} in {quantization.bits} bit", origin.name, facts)
    return sum(map(num_weights, model.parameters()))


def write_note(folder: Path, title: str, base_name: str, facts: Mapping[str, str]) -> None:
    """Write README.md: what this is, whose licence applies to it, how it was made and by which versions."""
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    lines = [f"- {name}: {text}" for name, text in {**facts, "versions": versions}.items()]
    licence = f"The licence of {base_name} applies to these weights, too: {licence_page(base_name)}"
    text = "\n".join([f"# {title}", "", licence, "", *lines]) + "\n"
    (folder / "README.md").write_text(text, encoding="utf-8")


def licence_page(base_name: str) -> str:
    """Where the licence is to be read: the model's page on the hub, or its folder."""
    from huggingface_hub import constants

    if Path(base_name).expanduser().is_dir():
        return "see the files in that folder."
    return f"{constants.ENDPOINT}/{base_name}"


def copy_licences(settings: ModelSettings, folder: Path) -> None:
    """Most licences ask to travel with the weights."""
    source = base.weights_folder(settings)
    for path in {path for pattern in LICENCES for path in source.glob(pattern) if path.is_file()}:
        shutil.copyfile(path, folder / path.name)
