"""What users otherwise train with: TRL's SFTTrainer and transformers' Trainer, with the same LoRA on the same rows."""

from collections.abc import Mapping
from typing import Any, ClassVar

from transformers import AutoModelForSequenceClassification, DataCollatorForSeq2Seq, Trainer, TrainingArguments

from benchmarks.ours_training import with_adapter
from benchmarks.trainer_side import WAYS, TrainerSide
from benchmarks.workload import LABEL_IDS

IGNORED = -100
# TRL's own way to do without padding; its packing does the same, but leaves open how many rows a step has.
FREE: dict[str, dict[str, Any]] = {
    f"{way} padding-free": {**WAYS[way], "padding_free": True, "max_length": None} for way in ("8 rows", "4 rows")
}


class Sft(TrainerSide):
    """TRL's SFTTrainer with completion-only loss; rows are given as token ids, which spares it the tokenising."""

    ways: ClassVar = {**WAYS, **FREE}

    def make_trainer(self, options: Mapping[str, Any]) -> Trainer:
        import datasets
        from trl import SFTConfig, SFTTrainer

        datasets.disable_progress_bars()
        rows = [{"input_ids": whole(row), "completion_mask": [0] * len(row[0]) + [1]} for row in self.rows]
        config = SFTConfig(**{"completion_only_loss": True, "max_length": None, **options})
        train = datasets.Dataset.from_list(rows)
        return SFTTrainer(model=self.model, args=config, train_dataset=train, processing_class=self.tokenizer)


class FullLogits(TrainerSide):
    """transformers' Trainer on the causal LM, prompts masked in the labels: logits of all positions, as SFT was."""

    def make_trainer(self, options: Mapping[str, Any]) -> Trainer:
        rows = [{"input_ids": whole(row), "labels": [IGNORED] * len(row[0]) + [LABEL_IDS[row[1]]]} for row in self.rows]
        return plain_trainer(self, rows, options)


class Classifier(TrainerSide):
    """transformers' Trainer on AutoModelForSequenceClassification; its classes begin as the head's label rows."""

    def make_model(self) -> Any:
        causal = self.workload.model()
        config = self.workload.config()
        config.num_labels = len(LABEL_IDS)
        model = AutoModelForSequenceClassification.from_config(config, dtype=causal.dtype)
        model.base_model.load_state_dict(causal.base_model.state_dict())
        model.score.weight.data.copy_(causal.get_output_embeddings().weight[list(LABEL_IDS)])
        return with_adapter(model, len(LABEL_IDS))

    def make_trainer(self, options: Mapping[str, Any]) -> Trainer:
        trainer = plain_trainer(self, [{"input_ids": ids, "labels": [label]} for ids, label in self.rows], options)
        # transformers 5.23 adds up the means of accumulated batches of classifiers; with this it averages them.
        trainer.model_accepts_loss_kwargs = False
        return trainer


def whole(row: tuple[list[int], int]) -> list[int]:
    """A prompt with its answer."""
    return [*row[0], LABEL_IDS[row[1]]]


def plain_trainer(side: TrainerSide, rows: list[dict], options: Mapping[str, Any]) -> Trainer:
    """transformers' Trainer over rows padded on the right, labels too."""
    collator = DataCollatorForSeq2Seq(side.tokenizer, label_pad_token_id=IGNORED)
    return Trainer(model=side.model, args=TrainingArguments(**options), train_dataset=rows, data_collator=collator)
