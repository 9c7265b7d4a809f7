"""Settings that do not go with a probe, which leaves the model's weights as they are."""

from collections.abc import Iterator

from nexttoken.settings import AUTO, Settings


def probe_contradictions(s: Settings) -> Iterator[str]:
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
