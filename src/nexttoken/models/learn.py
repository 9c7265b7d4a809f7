"""From examples to a trained answerer: encode once, audit the labels, load the weights, fit, save."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import seed_everything
from torch import nn

from nexttoken.models.answer import LabelAnswerer
from nexttoken.models.batches import TrainSteps, token_batches
from nexttoken.models.encode import Encoded, Encoder
from nexttoken.models.fit import fit
from nexttoken.models.folder import save_labels, save_model
from nexttoken.models.load import choose_device, choose_dtype, load_model, load_tokenizer, within_context
from nexttoken.models.memory import advice_on_memory
from nexttoken.models.module import LabelModule
from nexttoken.models.readout import collate
from nexttoken.prompts import Prompt
from nexttoken.settings import Settings
from nexttoken.types import Example


@dataclass(frozen=True)
class Learner:
    """A model with its encoded rows, ready to train: whatever can be refused has been, and nothing is written yet."""

    settings: Settings
    encoder: Encoder
    model: nn.Module
    train: Encoded
    dev: Encoded | None

    @classmethod
    def load(cls, settings: Settings, prompt: Prompt, train: Sequence[Example], dev: Sequence[Example]) -> "Learner":
        """Tokenise and find the label tokens first, load the weights last."""
        seed_everything(settings.seed, verbose=False)
        tokenizer = load_tokenizer(settings.model, training_texts(prompt, train))
        encoder = Encoder(tokenizer, prompt, within_context(settings.model, settings.max_tokens))
        encoded = encoder.encode(train)
        print(encoded.labels.table())
        encoded_dev = encoder.encode(dev, encoded.labels) if dev else None
        device = choose_device()
        dtype = choose_dtype(settings.model, device, training=settings.trainer.max_epochs > 0)
        print(f"device: {device}, weights in {str(dtype).removeprefix('torch.')}")
        model = load_model(settings.model, tokenizer, settings.max_tokens, dtype)
        return cls(settings, encoder, model, encoded, encoded_dev)

    def learn(self, folder: Path, loggers: list) -> tuple[LabelAnswerer, dict[str, Any]]:
        """Train, choose the checkpoint on the dev rows, save the model; return the answerer and what was measured.

        With `trainer.max_epochs=0` nothing is trained: the model answers as it came.
        """
        labels, rows, num_epochs = self.train.labels, self.train.prompts, self.settings.trainer.max_epochs
        save_labels(folder / "labels.json", labels)
        start = time.monotonic()
        num_trained = self._fit(folder, loggers) if num_epochs else 0
        seconds = time.monotonic() - start
        save_model(folder / "model", self.model, self.encoder.tokenizer)
        model = self.model.to(choose_device())
        return LabelAnswerer(model, self.encoder, labels, self.settings.batch_tokens), {
            "num_parameters": sum(p.numel() for p in model.parameters()),
            "num_train_rows": len(rows),
            "tokens_per_row": sum(len(p.token_ids) for p in rows) / len(rows),
            "num_train_truncated": self.train.counts()["num_truncated"],
            "train_seconds": seconds,
            "train_rows_per_second": num_trained / seconds if num_trained else 0.0,
        }

    def _fit(self, folder: Path, loggers: list) -> int:
        settings, labels = self.settings, self.train.labels
        to_batch = partial(collate, tokens=labels)
        batch_tokens = settings.batch_tokens // len(labels.contexts)  # a prompt is read once per context
        steps = TrainSteps(self.train.prompts, settings.fit.batch_size, batch_tokens, settings.seed, to_batch)
        num_steps = len(steps) * settings.trainer.max_epochs
        module = LabelModule(self.model, labels, settings.fit, num_steps, settings.seed)
        dev = self.dev.prompts if self.dev else []
        batches = token_batches([len(row.token_ids) for row in dev], batch_tokens)
        dev_batches = [to_batch([dev[index] for index in batch]) for batch in batches]
        with advice_on_memory(settings.batch_tokens):
            return fit(module, steps, dev_batches, folder, settings.trainer.model_dump(), loggers)


def training_texts(prompt: Prompt, examples: Sequence[Example]) -> list[str]:
    """What a tokenizer built from nothing learns from: prompts of the training part with their labels, nothing else."""
    bodies = ("".join(message.content for message in prompt.render(example.fields)) for example in examples)
    return [body + label for body in bodies for label in prompt.labels]
