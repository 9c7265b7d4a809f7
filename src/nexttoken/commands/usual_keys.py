"""Names that other training programs use, for the hint after an unknown key, and keys that are written short."""

USUAL_NAMES = {
    "fit.learning_rate": "lr learning_rate",
    "fit.batch_size": "bs batch batch_size train_batch_size per_device_train_batch_size",
    "fit.weight_decay": "wd weight_decay",
    "fit.warmup_fraction": "warmup warmup_ratio warmup_fraction",
    "fit.decay": "scheduler lr_scheduler lr_scheduler_type",
    "fit.optimizer": "optim optimizer",
    "fit.max_grad_norm": "clip gradient_clip gradient_clip_val max_grad_norm",
    "fit.gradient_checkpointing": "checkpointing gradient_checkpointing",
    "trainer.max_epochs": "epoch epochs max_epoch max_epochs num_epochs n_epochs num_train_epochs",
    "trainer.devices": "gpu gpus num_gpus devices",
    "trainer.precision": "precision bf16 fp16",
    "model.name_or_path": "model_name model_path model_name_or_path pretrained checkpoint base_model",
    "model.scratch.dropout": "dropout",
    "adapter": "peft lora",
    "model.dtype": "dtype torch_dtype",
    "adapter.r": "rank lora_r lora_rank r",
    "adapter.alpha": "lora_alpha alpha",
    "adapter.dropout": "lora_dropout",
    "adapter.target_modules": "target_modules lora_target_modules",
    "quantization": "bits load_in_4bit load_in_8bit",
    "max_tokens": "max_len max_length max_seq_len max_seq_length seq_len context",
    "generation.max_new_tokens": "max_new_tokens",
    "generation.temperature": "temperature",
    "generation.top_p": "top_p",
    "split.num_folds": "folds num_folds n_folds k_folds n_splits",
    "input_dir": "data data_dir dataset input data_path",
    "output_dir": "output out out_dir",
    "overwrite": "force overwrite_output_dir",
    "seed": "random_seed random_state",
    "prompt": "template",
}
USUAL_KEYS = {name: key for key, names in USUAL_NAMES.items() for name in names.split()}

# Settings that are written short: `teacher=output/lmsys/blend` beside `teacher.weight=0.9`.
SHORT_KEYS = {"teacher": "teacher.run", "pseudo_labels": "pseudo_labels.file"}


def in_full(override: str) -> str:
    """An argument with the whole name of its setting; any other one as it is."""
    key, equals, value = override.partition("=")
    return SHORT_KEYS.get(key, key) + equals + value
