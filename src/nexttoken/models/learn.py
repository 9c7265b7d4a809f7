"""From examples to a trained answerer: load, encode once, fit, and keep the label tokens for the readout."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import seed_everything

from nexttoken.models.answer import LabelAnswerer
from nexttoken.models.batches import TrainSteps, token_batches
from nexttoken.models.encode import Encoded, Encoder
from nexttoken.models.fit import fit
from nexttoken.models.folder import choose_device, save_labels, save_model
from nexttoken.models.load import load_model, load_tokenizer, within_context
from nexttoken.models.module import LabelModule
from nexttoken.models.readout import collate
from nexttoken.prompts import Prompt
from nexttoken.settings import Settings
from nexttoken.types import Example


def learn(
    settings: Settings, prompt: Prompt, train: Sequence[Example], dev: Sequence[Example], folder: Path, loggers: list
) -> tuple[LabelAnswerer, dict[str, Any]]:
    """Train on `train`, choose the checkpoint on `dev`, save the model; return the answerer and what was measured.

    With `trainer.max_epochs=0` nothing is trained: the model answers as it came.
    """
    seed_everything(settings.seed, verbose=False)
    tokenizer = load_tokenizer(settings.model, training_texts(prompt, train))
    model = load_model(settings.model, tokenizer, settings.max_tokens)
    max_tokens = within_context(model, settings.max_tokens)
    encoder = Encoder(tokenizer, prompt, max_tokens)
    encoded = encoder.encode(train)
    print(encoded.labels.table())
    save_labels(folder / "labels.json", encoded.labels)
    seconds = 0.0
    if num_epochs := settings.trainer.max_epochs:
        start = time.monotonic()
        fit_model(settings, model, encoded, encoder.encode(dev, encoded.labels) if dev else None, folder, loggers)
        seconds = time.monotonic() - start
    save_model(folder / "model", model, tokenizer)
    answerer = LabelAnswerer(model.to(choose_device()), encoder, encoded.labels, settings.batch_tokens)
    num_tokens = sum(len(p.token_ids) for p in encoded.prompts)
    return answerer, {
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "num_train_rows": len(encoded.prompts),
        "tokens_per_row": num_tokens / len(encoded.prompts),
        "num_train_truncated": encoded.counts()["num_truncated"],
        "train_seconds": seconds,
        "train_rows_per_second": num_epochs * len(encoded.prompts) / seconds if seconds else 0.0,
    }


def fit_model(settings: Settings, model: Any, train: Encoded, dev: Encoded | None, folder: Path, loggers: list) -> None:
    """Run Lightning over the encoded rows."""
    labels = train.labels

    def to_batch(rows: Sequence) -> Any:
        return collate(rows, labels)

    batch_tokens = settings.batch_tokens // len(labels.contexts)  # a prompt is read once per context
    steps = TrainSteps(train.prompts, settings.fit.batch_size, batch_tokens, settings.seed, to_batch)
    num_steps = len(steps) * settings.trainer.max_epochs
    module = LabelModule(model, labels, settings.fit, num_steps, settings.seed)
    rows = dev.prompts if dev else []
    dev_batches = [
        to_batch([rows[index] for index in batch])
        for batch in token_batches([len(row.token_ids) for row in rows], batch_tokens)
    ]
    fit(module, steps, dev_batches, folder, settings.trainer.model_dump(), loggers)


def training_texts(prompt: Prompt, examples: Sequence[Example]) -> list[str]:
    """What a tokenizer built from nothing learns from: prompts of the training part with their labels, nothing else."""
    bodies = ("".join(message.content for message in prompt.render(example.fields)) for example in examples)
    return [body + label for body in bodies for label in prompt.labels]


def peak_memory_mb() -> float:
    """Peak memory of this process in MiB: the GPU's allocations where there is one, else resident memory."""
    import resource

    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
