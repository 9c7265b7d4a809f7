"""Training of a fold: encode the examples, load the weights, fit, save, and return an answerer."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import seed_everything
from torch import nn

from nexttoken.engine.answerers import Answerer, AnyEncoder, make_answerer, make_encoder
from nexttoken.engine.float16_trial import MAX_OVERFLOWING, fits_float16
from nexttoken.engine.heads import Head
from nexttoken.engine.memory_plan.auto_tokens import AutoTokens, settle_max_tokens, with_batch_tokens
from nexttoken.engine.memory_plan.make import make_plan
from nexttoken.models.adapters import add_adapter, overwrite_adapter, start_from_quantization_error, trained_adapter
from nexttoken.models.base_model import identify, refuse_other_base, weights_folder
from nexttoken.models.load import (
    ModelSpec,
    has_classifier,
    leave_out_classifier,
    load_model,
    load_tokenizer,
    resolve,
    retries_rows,
    within_context,
)
from nexttoken.models.memory import advice_on_memory
from nexttoken.models.precision import AUTOCAST, compute_in
from nexttoken.models.processes import is_first
from nexttoken.models.quantized import move_model, num_weights, refuse_untrainable
from nexttoken.models.saved import save_encoding, save_trained
from nexttoken.models.sharded import gather_weights
from nexttoken.prompts.encode_labels import Encoded
from nexttoken.prompts.encoded import EncodedTexts
from nexttoken.prompts.prompt import Prompt
from nexttoken.settings import AUTO, Settings
from nexttoken.training.dev_metric import LOG_LOSS, DevMetric
from nexttoken.training.phases import Training
from nexttoken.training.time_budget import TimeBudget
from nexttoken.types import Example

TRAIN_COUNTS = ("num_truncated", "num_left_out")  # of examples changed by encoding
MAX_FINETUNING_RATE = 1e-3  # higher learning rates usually destroy pretrained weights


@dataclass(frozen=True)
class Learner:
    """A model with its encoded examples: everything is checked, and nothing is written yet."""

    spec: ModelSpec
    head: Head
    encoder: AnyEncoder
    model: nn.Module
    train: Encoded | EncodedTexts
    dev: Encoded | EncodedTexts | None
    budget: AutoTokens | None = None  # chosen for max_tokens=auto
    whole: Encoded | EncodedTexts | None = None  # train and dev rows, for a second training of the chosen length

    @classmethod
    def load(
        cls,
        settings: Settings,
        head: Head,
        prompt: Prompt,
        train: Sequence[Example],
        dev: Sequence[Example],
        fold_dir: Path | None = None,
        whole: Sequence[Example] = (),
    ) -> "Learner":
        """Encode and check first, load the weights last. `fold_dir` may hold an interrupted run's token budget.

        `dev` are shown as inference shows them, `whole` are train and dev rows as training shows them.
        """
        seed_everything(settings.seed, verbose=False)
        tokenizer = load_tokenizer(settings.model, training_texts(prompt, train))
        spec = resolve(settings)
        print(f"{'device':<9} {spec}")
        refuse_untrainable(spec.config, settings)
        budget = None
        if settings.max_tokens == AUTO:
            unlimited = make_encoder(head, tokenizer, prompt, AUTO)
            budget = settle_max_tokens(spec, unlimited, head, [*train, *dev, *whole], fold_dir)
            print(budget)
            spec = spec.change(max_tokens=budget.number)
        spec = with_batch_tokens(spec)
        encoder: Any = make_encoder(head, tokenizer, prompt, within_context(spec.config, spec.settings.max_tokens))
        encoded = encoder.for_training(train)
        encoded_dev, encoded_whole = (encoder.for_choosing(some, encoded) if some else None for some in (dev, whole))
        if settings.generate_rows:
            encoder.encode_prompts(train[:1], settings.generation.max_new_tokens)  # refused now, not after training
        if settings.model.name_or_path is not None:
            show_finetuning(spec)
        if settings.model.from_run and settings.adapter:
            base = identify(settings.model, tokenizer)
            refuse_other_base(Path(settings.model.from_run), spec.settings, base, "model.name_or_path")
        num_classes = head.num_outputs(encoded.labels)
        seed_everything(settings.seed, verbose=False)  # so that new weights depend on the seed only
        model = load_base(spec, tokenizer, num_classes)
        if not _fits_float16(spec, model, encoded):
            del model
            return cls.load(in_float32(settings), head, prompt, train, dev, fold_dir, whole)
        model = made_trainable(model, spec.settings, num_classes)
        return cls(spec, head, encoder, model, encoded, encoded_dev, budget, encoded_whole)

    @property
    def settings(self) -> Settings:
        """The run's settings with numbers in place of auto."""
        return self.spec.settings

    def learn(
        self,
        folder: Path,
        loggers: list,
        after_choice: Callable[[Answerer], None] = lambda _: None,
        dev_metric: DevMetric = LOG_LOSS,
        budget: TimeBudget | None = None,
    ) -> tuple[Answerer, dict[str, Any]]:
        """Train, choose the checkpoint on the dev rows, train on all rows, save; return the answerer and measurements.

        A `budget` leaves time for what follows.
        `after_choice` is called with the chosen checkpoint, whose weights have not learnt the dev rows. With
        `trainer.max_epochs=0` the model is saved and returned without training.
        """
        final = self.whole or self.train
        if is_first():
            save_encoding(folder, final)
            if self.budget is not None:
                self.budget.save(folder)
        start = time.monotonic()
        num_trained, measured = self._train(folder, loggers, after_choice, dev_metric, budget)
        seconds = time.monotonic() - start
        weights = gather_weights(self.model)
        if is_first():
            save_trained(folder, self.settings, self.model, self.encoder.tokenizer, weights)
        if "refit_steps" not in measured:
            final = self.train
        rows = final.prompts
        return self._answerer(), measured | {
            "num_parameters": sum(map(num_weights, self.model.parameters())),
            "num_trainable": sum(p.numel() for p in self.model.parameters() if p.requires_grad),
            "num_train_rows": len(rows),
            "tokens_per_row": sum(len(p.token_ids) for p in rows) / len(rows),
            **{f"num_train_{key[4:]}": number for key, number in final.counts().items() if key in TRAIN_COUNTS},
            "train_seconds": seconds,
            "train_rows_per_second": num_trained / seconds,
        }

    def _train(
        self,
        folder: Path,
        loggers: list,
        after_choice: Callable[[Answerer], None],
        dev_metric: DevMetric,
        budget: TimeBudget | None,
    ) -> tuple[int, dict[str, Any]]:
        """Train; return the number of rows trained now, and the measurements."""
        if not self.settings.trainer.max_epochs:
            after_choice(self._answerer())
            return 0, {"padded_share": 0.0}
        training = Training(self.spec, self.model, self.head, self.train.labels, folder, dev_metric, budget)
        dev = self.dev.prompts if self.dev else []
        rates = training.rehearse(self.train.prompts, dev) if self.settings.fit.find_learning_rate else {}
        measured = rates | training.choose(self.train.prompts, dev, loggers, keep_start=self.whole is not None)
        after_choice(self._answerer())
        if self.whole is not None:
            measured |= training.refit(self.whole.prompts, measured["best_step"])
        return training.num_rows, measured | {"padded_share": training.padded_share}

    def _answerer(self) -> Answerer:
        model = move_model(self.model, self.spec.device)  # Lightning moves it to the CPU
        return make_answerer(self.head, model, self.encoder, self.train.labels, self.settings.batch_tokens)


def show_finetuning(spec: ModelSpec) -> None:
    """Print the memory plan, and a remark on a learning rate that is for weights from scratch."""
    rate = spec.settings.fit.learning_rate
    if spec.settings.trainer.max_epochs and rate > MAX_FINETUNING_RATE:
        print(f"fit.learning_rate={rate} is for weights from scratch; fit=finetune is for pretrained ones")
    print(make_plan(spec).table())


def load_base(spec: ModelSpec, tokenizer: Any, num_classes: int | None) -> nn.Module:
    """The model with the weights that training begins from, without an adapter."""
    settings = spec.settings
    device = torch.device("cpu") if settings.trainer.strategy == "fsdp" else spec.device  # whole on no device
    weights = (spec.dtype, settings.quantization, num_classes, spec.config, device)
    with advice_on_memory(settings.batch_tokens):
        model = load_model(settings.model, tokenizer, settings.max_tokens, *weights)
    if has_classifier(spec.config) and not settings.model.from_run:
        leave_out_classifier(model, str(settings.model.name_or_path), num_classes)
    compute_in(model, AUTOCAST[spec.precision])
    return model


def made_trainable(model: Any, settings: Settings, num_classes: int | None) -> nn.Module:
    """The model with its adapter, if it is to have one, and with gradient checkpointing."""
    if adapter := trained_adapter(settings):
        model = add_adapter(model, adapter, num_classes)
        if start := settings.model.from_run:
            overwrite_adapter(model, adapter, Path(start))
        elif adapter.init == "loftq":
            start_from_quantization_error(model, weights_folder(settings.model))
    if settings.fit.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    return model


def in_float32(settings: Settings) -> Settings:
    """The settings of the same training without float16."""
    trainer = settings.trainer.model_copy(update={"precision": "32-true"})
    model = settings.model.model_copy(update={"dtype": "float32"})
    return settings.model_copy(update={"trainer": trainer, "model": model})


def _fits_float16(spec: ModelSpec, model: nn.Module, encoded: Encoded | EncodedTexts) -> bool:
    """False where training rows show that a model in float16 needs float32; one to be sharded is not tried."""
    if torch.float16 not in (spec.dtype, AUTOCAST[spec.precision]) or spec.settings.trainer.strategy == "fsdp":
        return True
    with advice_on_memory(spec.settings.batch_tokens):
        rows = [prompt.token_ids for prompt in encoded.prompts]
        return fits_float16(
            move_model(model, spec.device), rows, MAX_OVERFLOWING if retries_rows(spec.settings) else 0.0
        )


def training_texts(prompt: Prompt, examples: Sequence[Example]) -> list[str]:
    """Texts to train a tokenizer on: prompts of the training rows with their answers."""
    bodies = ("".join(message.content for message in prompt.render(example)) for example in examples)
    pairs = zip(bodies, map(prompt.continuations, examples), strict=True)
    return [body + answer for body, answers in pairs for answer in answers]
