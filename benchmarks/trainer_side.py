"""A trainer of transformers as one side of a comparison: the same LoRA, the same rows in the same optimizer steps."""

import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import Trainer, TrainerCallback

from benchmarks.ours_training import ADAPTER, LEARNING_RATE, SEED, set_dropout, with_adapter
from benchmarks.sides import Answers
from benchmarks.workload import Workload, tokenizer
from nexttoken.training.optimizers import BETAS

# How an optimizer step is cut into micro-batches, whose gradients are accumulated: more rows, or less padding.
WAYS: dict[str, dict[str, Any]] = {f"{rows} rows": {"per_device_train_batch_size": rows} for rows in (8, 4, 2, 1)}
USUAL = ("8 rows", "4 rows")


class Clock(TrainerCallback):
    """Seconds from the first optimizer step's begin to the last one's end."""

    def __init__(self) -> None:
        self.begin, self.end = 0.0, 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.begin = self.begin or time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.end = time.perf_counter()


class TrainerSide:
    """A trainer that runs `steps` optimizer steps from the same weights, in the order that our own steps have."""

    ways: ClassVar = WAYS

    def __init__(self, workload: Workload, steps: int, way: str = "8 rows", usual: bool = False) -> None:
        self.workload, self.batch_size = workload, workload.rows // steps
        self.tokenizer = tokenizer(workload.shape.sizes["vocab_size"])
        self.model = self.make_model()
        self.start = {name: p.detach().clone() for name, p in self.model.named_parameters() if p.requires_grad}
        order = np.random.default_rng((SEED, 0)).permutation(workload.rows)  # as TrainSteps draws it
        self.rows = [(workload.prompts[row], workload.labels[row]) for row in order]
        self.way, self.usual = way, usual

    def make_model(self) -> Any:
        return with_adapter(self.workload.model())

    def make_trainer(self, options: Mapping[str, Any]) -> Trainer:
        raise NotImplementedError

    def run(self) -> Answers:
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if name in self.start:
                    parameter.copy_(self.start[name])
        clock = Clock()
        with tempfile.TemporaryDirectory(prefix="nexttoken-") as folder:
            trainer = self.make_trainer({**self.options(), **self.ways[self.way], "output_dir": folder})
            trainer.add_callback(clock)
            losses = recorded_losses(trainer)
            trainer.train()
        return Answers(np.array([losses[step] for step in sorted(losses)]), clock.end - clock.begin)

    def check(self) -> np.ndarray:
        """The loss of each step, without dropout."""
        set_dropout(self.model, 0.0)
        answers = self.run()
        set_dropout(self.model, ADAPTER.dropout)
        return answers.values

    def settle(self) -> str:
        """Try every way once (or the usual ones only), keep the fastest, and say what was tried."""
        seconds: dict[str, float] = {}
        failed: list[str] = []
        ways = {way: self.ways[way] for way in USUAL} if self.usual else self.ways
        fitting = [way for way, own in ways.items() if self.batch_size % own["per_device_train_batch_size"] == 0]
        for way in fitting:
            self.way = way
            try:
                seconds[way] = self.run().seconds or 0.0
            except Exception as error:  # an option that this model or machine does not have
                failed.append(f"{way} fails ({type(error).__name__})")
        self.way = min(seconds, key=lambda way: seconds[way])
        tried = [f"{way} {value:.2f} s" for way, value in seconds.items()]
        return f"{self.way} a micro-batch are the peer's fastest (tried {', '.join([*tried, *failed])})"

    def options(self) -> dict[str, Any]:
        """Optimizer steps like ours, and nothing beside them."""
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
    """What the trainer will fill while it trains: by optimizer step, the sum of what its micro-batches return."""
    losses: dict[int, float] = defaultdict(float)
    original = trainer.training_step

    def training_step(*arguments: Any, **options: Any) -> torch.Tensor:
        loss = original(*arguments, **options)
        losses[trainer.state.global_step] += loss.item()
        return loss

    trainer.training_step = training_step
    return losses
