"""Settings that cannot be used together, each contradiction as a line with the fix."""

from collections.abc import Iterator

from nexttoken.data.targets import declared
from nexttoken.errors import nearest
from nexttoken.settings import AUTO, Settings, TrainerSettings

# Options of Lightning's Trainer that this project's own training replaces.
REPLACED_OPTIONS = {
    "accumulate_grad_batches": "use fit.batch_size for a step's rows, and batch_tokens for those in memory at once",
    "gradient_clip_val": "use fit.max_grad_norm",
    "gradient_clip_algorithm": "use fit.max_grad_norm",
    "max_steps": "use trainer.max_epochs",
    "logger": "use logger=..., such as logger=wandb",
}


def contradictions(s: Settings) -> Iterator[str]:
    """The contradictions of a configuration, from the head to the devices."""
    for option in s.trainer.model_extra or ():
        fix = REPLACED_OPTIONS.get(option) or nearest(option, TrainerSettings.model_fields)
        yield f"trainer.{option} is no option of this training; {fix}"
    offers = declared(s.head, "offers")
    has_new_layer = not offers & {"vocabulary", "states"}
    if "states" in offers:
        yield from _of_probe(s)
    yield from _of_answers(s, has_new_layer)
    yield from _of_weights(s)
    if s.trainer.strategy == "fsdp":
        yield from _of_shards(s, has_new_layer)


def _of_probe(s: Settings) -> Iterator[str]:
    """Settings that head=probe has no use for, since it trains no weights of the model."""
    transforms = [node.get("_target_") for node in (*s.transforms.values(), *s.train_transforms.values())]
    inference, fit = str(s.inference.get("_target_")).rpartition(".")[2], s.fit
    unused = {
        "model=scratch; give a pretrained one, model=... or model.name_or_path=...": s.model.name_or_path is None,
        "within=, since it is fitted in one piece; leave it out": s.within is not None,
        "trainer.max_epochs=0; leave it out": s.trainer.max_epochs == 0,
        "adapter=lora; use adapter=none": s.adapter,
        "model.from_run; leave it out": s.model.from_run,
        "trainer.devices above 1; use trainer.devices=1": s.trainer.devices > 1,
        "max_tokens=auto; give a number": s.max_tokens == AUTO,
        f"inference {inference}; use inference=once": inference not in ("Once", "SwapAveraged"),
        "correction; use correction=none": s.correction,
        "candidates of a row; use head=candidates": s.candidates.get("number") or s.task.get("labels_by"),
        "transforms=counts; head.counts=true has these numbers": any(str(t).endswith(".AddCounts") for t in transforms),
        "fit.find_learning_rate; leave it out": fit.find_learning_rate,
        "fit.ema; leave it out": fit.ema,
        "fit.text_epochs; leave it out": fit.text_epochs,
    }
    yield from (
        f"head=probe is a regression on frozen weights, without {what}" for what, used in unused.items() if used
    )


def _of_answers(s: Settings, has_new_layer: bool) -> Iterator[str]:
    """Settings that do not go with the kind of answers, or with a classification layer."""
    has_texts = "texts" in declared(s.head, "needs")
    if s.generate_rows and s.trainer.devices > 1:
        yield "answers are written by one process; use generate_rows=0, and predict.py on the finished run"
    if s.generate_rows and s.generation.max_new_tokens >= s.max_tokens:
        yield "generation.max_new_tokens leaves nothing of max_tokens for a prompt; lower it, or raise max_tokens"
    if s.generate_rows and not has_texts:
        yield "generate_rows is for open answers; use generate_rows=0: oof.csv holds the labels' probabilities"
    if s.without_fold is not None and s.without_fold == s.fold:
        yield f"fold={s.fold} is scored on the rows that without_fold={s.fold} leaves out; train the other folds"
    if s.fit.choose_after_temperature and has_texts:
        yield "fit.choose_after_temperature softens labels' probabilities, and answers are open; leave it out"
    if s.fit.text_epochs and has_texts:
        yield "fit.text_epochs trains on texts before labels, and open answers have none; use fit.text_epochs=0"
    if s.fit.text_epochs and has_new_layer:
        yield "head=classification has no output for words, so it cannot learn texts; use fit.text_epochs=0"
    if has_new_layer and s.trainer.max_epochs == 0:
        yield "head=classification is a new layer with random weights; it cannot answer with trainer.max_epochs=0"


def _of_weights(s: Settings) -> Iterator[str]:
    """Adapters and quantisation that the weights do not allow."""
    adapter, weights, is_pretrained = s.adapter, s.quantization, s.model.name_or_path is not None
    if adapter and not is_pretrained:
        yield "adapter=lora needs a pretrained base, not model=scratch; give model=... or model.name_or_path=..."
    if weights and not is_pretrained:
        yield "quantization needs a pretrained model, not model=scratch; give model=... or model.name_or_path=..."
    if weights and not adapter and s.trainer.max_epochs > 0:
        yield "quantised weights cannot be trained; add adapter=lora (QLoRA), or trainer.max_epochs=0 for zero-shot"
    if adapter and adapter.init == "loftq" and not (weights and weights.bits == 4):
        yield "adapter.init=loftq starts from the error of 4 bits; add quantization=nf4 or use another init"
    if adapter and adapter.init == "loftq" and adapter.dora:
        yield "adapter.init=loftq changes the weights that adapter.dora=true took its magnitudes from; use one of them"
    if adapter and adapter.init == "orthogonal" and weights:
        yield "adapter.init=orthogonal takes its dtype from weights that are not quantised; use another init"
    if adapter and adapter.dora and weights and weights.bits == 8:
        yield "adapter.dora=true fails on 8-bit weights (peft 0.21, bitsandbytes 0.50); use quantization=nf4"


def _of_shards(s: Settings, has_new_layer: bool) -> Iterator[str]:
    """Settings that do not go with a model that is spread over several devices."""
    if s.trainer.devices == 1:
        yield "trainer.strategy=fsdp shards a model over several devices; add trainer.devices=2 or more"
    if s.quantization:
        yield "trainer.strategy=fsdp cannot shard the packed weights of bitsandbytes; use trainer.strategy=ddp"
    if has_new_layer:
        yield "trainer.strategy=fsdp shards models with their language-model head only; use head=label"
    if s.fit.optimizer != "adamw":
        yield "trainer.strategy=fsdp shards the optimizer's states itself; use fit.optimizer=adamw"
    if s.trainer.precision == "16-mixed":
        yield "trainer.strategy=fsdp has no scaled float16; use trainer.precision=bf16-mixed or 32-true"
    if s.fit.ema:
        yield "fit.ema keeps a second copy of the trained weights, which fsdp does not shard; use fit.ema=0"
    if s.fit.find_learning_rate:
        yield "fit.find_learning_rate=true keeps the first weights whole, beside fsdp's shards; give a learning rate"
