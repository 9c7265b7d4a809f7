"""The peers at training: TRL's SFTTrainer and transformers' Trainer, with the same LoRA on the same rows."""

import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import DataCollatorForSeq2Seq, Trainer, TrainerCallback, TrainingArguments

from benchmarks.ours_training import LEARNING_RATE, SEED, restore, trained_weights, with_adapter, without_dropout
from benchmarks.sides import Answers
from benchmarks.workload import LABEL_IDS, Workload, tokenizer
from nexttoken.training.steps import BETAS

IGNORED = -100
# Sizes of the micro-batches whose gradients are accumulated: larger ones have more rows at once and more padding.
WAYS: dict[str, dict[str, Any]] = {f"{rows} rows": {"per_device_train_batch_size": rows} for rows in (8, 4, 2, 1)}
USUAL = ("8 rows", "4 rows")
# TRL's padding-free collator. Its packing has no padding either, but does not fix the number of rows of a step.
PADDING_FREE: dict[str, dict[str, Any]] = {
    f"{way} padding-free": {**WAYS[way], "padding_free": True, "max_length": None} for way in USUAL
}


class Clock(TrainerCallback):
    """Times of the first optimizer step's begin and of the last one's end, in seconds."""

    def __init__(self) -> None:
        self.begin, self.end = 0.0, 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.begin = self.begin or time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.end = time.perf_counter()


class TrainerSide:
    """A trainer that runs `steps` optimizer steps from the same weights, over the rows in the order of our steps."""

    ways: ClassVar = WAYS

    def __init__(self, workload: Workload, steps: int, way: str = "8 rows", usual: bool = False) -> None:
        self.workload, self.batch_size = workload, workload.rows // steps
        self.tokenizer = tokenizer(workload.shape.sizes["vocab_size"])
        self.model = self.make_model()
        self.start = trained_weights(self.model)
        order = np.random.default_rng((SEED, 0)).permutation(workload.rows)  # as TrainSteps draws it
        self.rows = [(workload.prompts[row], workload.labels[row]) for row in order]
        self.way, self.usual = way, usual

    def make_model(self) -> Any:
        return with_adapter(self.workload.model())

    def make_trainer(self, options: Mapping[str, Any]) -> Trainer:
        raise NotImplementedError

    def run(self) -> Answers:
        restore(self.model, self.start)
        clock = Clock()
        with tempfile.TemporaryDirectory(prefix="nexttoken-") as folder:
            trainer = self.make_trainer({**self.options(), **self.ways[self.way], "output_dir": folder})
            trainer.add_callback(clock)
            losses = recorded_losses(trainer)
            trainer.train()
        return Answers(np.array([losses[step] for step in sorted(losses)]), clock.end - clock.begin)

    def check(self) -> np.ndarray:
        """The loss of each step, without dropout."""
        with without_dropout(self.model):
            return self.run().values

    def settle(self) -> str:
        """Run every way once (or the usual ones only), keep the fastest, and return a sentence with all times."""
        seconds: dict[str, float] = {}
        failed: list[str] = []
        for way in USUAL if self.usual else self.ways:
            if self.batch_size % self.ways[way]["per_device_train_batch_size"]:
                continue
            self.way = way
            try:
                seconds[way] = self.run().seconds or 0.0
            except Exception as error:  # an option that this model or machine does not have
                failed.append(f"{way} fails ({type(error).__name__})")
        self.way = min(seconds, key=lambda way: seconds[way])
        tried = [f"{way} {value:.2f} s" for way, value in seconds.items()]
        return f"{self.way} a micro-batch are the peer's fastest (tried {', '.join([*tried, *failed])})"

    def options(self) -> dict[str, Any]:
        """Optimizer steps like ours, without saving or logging."""
        size = min(self.batch_size, self.ways[self.way]["per_device_train_batch_size"])
        return {
            "gradient_accumulation_steps": self.batch_size // size,
            "num_train_epochs": 1,
            "learning_rate": LEARNING_RATE,
            "lr_scheduler_type": "constant",
            "weight_decay": 0.01,
            "adam_beta1": BETAS[0],
            "adam_beta2": BETAS[1],
            "bf16": False,
            "gradient_checkpointing": False,  # TRL's default is True, which is slower
            "train_sampling_strategy": "sequential",
            "save_strategy": "no",
            "report_to": "none",
            "logging_strategy": "no",
            "disable_tqdm": True,
            "use_cpu": True,
        }


def recorded_losses(trainer: Any) -> dict[int, float]:
    """The loss of each optimizer step, summed over its micro-batches; filled while the trainer trains."""
    losses: dict[int, float] = defaultdict(float)
    original = trainer.training_step

    def training_step(*arguments: Any, **options: Any) -> torch.Tensor:
        loss = original(*arguments, **options)
        losses[trainer.state.global_step] += loss.item()
        return loss

    trainer.training_step = training_step
    return losses


class Sft(TrainerSide):
    """TRL's SFTTrainer with completion-only loss; rows are token ids, so its time contains no tokenising."""

    ways: ClassVar = {**WAYS, **PADDING_FREE}

    def make_trainer(self, options: Mapping[str, Any]) -> Trainer:
        import datasets
        from trl import SFTConfig, SFTTrainer

        datasets.disable_progress_bars()
        rows = [{"input_ids": [*ids, LABEL_IDS[y]], "completion_mask": [0] * len(ids) + [1]} for ids, y in self.rows]
        config = SFTConfig(**{"completion_only_loss": True, "max_length": None, **options})
        train = datasets.Dataset.from_list(rows)
        return SFTTrainer(model=self.model, args=config, train_dataset=train, processing_class=self.tokenizer)


class FullLogits(TrainerSide):
    """transformers' Trainer on the causal LM, prompts masked in the labels; it computes the logits of all positions."""

    def make_trainer(self, options: Mapping[str, Any]) -> Trainer:
        answers = [(ids, LABEL_IDS[label]) for ids, label in self.rows]
        rows = [{"input_ids": [*ids, answer], "labels": [IGNORED] * len(ids) + [answer]} for ids, answer in answers]
        return plain_trainer(self, rows, options)


class Classifier(TrainerSide):
    """transformers' Trainer on AutoModelForSequenceClassification; its classes start as the head's label rows."""

    def make_model(self) -> Any:
        from transformers import AutoModelForSequenceClassification

        causal, config = self.workload.model(), self.workload.config()
        config.num_labels = len(LABEL_IDS)
        model = AutoModelForSequenceClassification.from_config(config, dtype=causal.dtype)
        model.base_model.load_state_dict(causal.base_model.state_dict())
        model.score.weight.data.copy_(causal.get_output_embeddings().weight[list(LABEL_IDS)])
        return with_adapter(model, len(LABEL_IDS))

    def make_trainer(self, options: Mapping[str, Any]) -> Trainer:
        trainer = plain_trainer(self, [{"input_ids": ids, "labels": [label]} for ids, label in self.rows], options)
        # transformers 5.23 sums the mean losses of accumulated batches of classifiers; with this it averages them.
        trainer.model_accepts_loss_kwargs = False
        return trainer


def plain_trainer(side: TrainerSide, rows: list[dict], options: Mapping[str, Any]) -> Trainer:
    """transformers' Trainer; rows and labels are padded on the right."""
    collator = DataCollatorForSeq2Seq(side.tokenizer, label_pad_token_id=IGNORED)
    return Trainer(model=side.model, args=TrainingArguments(**options), train_dataset=rows, data_collator=collator)
