"""Folders from strangers, one of whose files is altered: models with their tokenizers, adapters, and finished runs."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np

from conftest import CHAT_TEMPLATE, TEXTS, load_pair, save_small_base
from fuzz.target import Target, file_target
from nexttoken.data.checked_settings import check_settings
from nexttoken.data.files import read_json, write_json
from nexttoken.engine.heads import LabelSoftmax
from nexttoken.engine.label_answerer import predict_labels
from nexttoken.models.adapters import FILES, add_adapter, overwrite_adapter, save_adapter
from nexttoken.models.load import end_ids, load_model, load_tokenizer, resolve
from nexttoken.prompts.encode_labels import Encoder
from nexttoken.prompts.prompt import Prompt
from nexttoken.settings import AdapterSettings, ModelSettings, Settings
from nexttoken.types import Example
from support.composed import composed
from support.finished_runs import write_run
from support.read_run_files import run_readers

MODEL_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
EXAMPLES = [Example(name, {"q": (text,)}) for name, text in zip("ab", TEXTS, strict=False)]
PROMPT = Prompt("{{ q[0] }}\n", "### Answer\n", ("A", "B", "tie"), ("a", "b", "c"))
LORA = AdapterSettings(r=4, alpha=8, dropout=0.0, target_modules="all-linear", rslora=False, dora=False, init="default")


def models(folder: Path) -> Target:
    """The files of a model's folder; it is planned, loaded and asked."""
    save_small_base(folder)
    tokenizer = read_json(folder / "tokenizer_config.json")
    write_json(tokenizer | {"chat_template": CHAT_TEMPLATE}, folder / "tokenizer_config.json")
    named = ["model.name_or_path=" + str(folder), "trainer.max_epochs=0", "max_tokens=128"]
    settings = check_settings(Settings, composed(*named) | {"name": "x"})
    readers = [(folder / name, lambda _: ask(settings)) for name in MODEL_FILES if (folder / name).exists()]
    return file_target(readers, says_name=False)  # a chat template is refused as the prompt's


def ask(settings: Settings) -> None:
    """Answer two prompts without training. Raises AssertionError for probabilities that no submission may hold."""
    tokenizer = load_tokenizer(settings.model, ())
    Encoder(tokenizer, replace(PROMPT, chat=True), 128).encode(EXAMPLES)
    encoded = Encoder(tokenizer, PROMPT, 128).encode(EXAMPLES)
    spec = resolve(settings)
    end_ids(spec, len(tokenizer))
    model = load_model(spec.settings.model, tokenizer, 128, spec.dtype, config=spec.config).eval()
    predicted = predict_labels(model, LabelSoftmax(), encoded.prompts, encoded.labels, 1024)
    assert np.isfinite(predicted.probs).all()
    assert np.allclose(predicted.probs.sum(axis=1), 1)


def adapters(folder: Path) -> Target:
    """The files of a fold's adapter."""
    settings = ModelSettings(name_or_path=str(save_small_base(folder / "base")))
    model = add_adapter(load_pair(settings).model, LORA)
    saved = folder / "adapter"
    save_adapter(model, saved)
    return file_target((saved / name, lambda _: overwrite_adapter(model, LORA, saved)) for name in FILES)


def runs(folder: Path) -> Target:
    """The files of finished runs, and what commands make of them."""
    readers = [*run_readers(folder / "read").values()]
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=120)
    for seed, name in enumerate(("one", "two")):
        probs = rng.dirichlet([2.0] * 3, 120)
        write_run(folder / "made" / name, 0.7 * probs + 0.3 * np.eye(3)[labels], labels, num_folds=2, max_tokens=seed)
    run = folder / "made" / "one"
    names = ["metrics.json", "oof.csv", "rows.csv", "config.yaml"]
    for path in [*(run / "fold1" / name for name in names), run / "folds.csv"]:
        readers += [(path, work) for work in works(folder / "made")]
    return file_target(readers)


def works(made: Path) -> list[Callable[[Path], object]]:
    """The commands that read whole runs, each as a call whose output is removed."""
    lines = {
        "report": [str(made), f"out={made / 'report'}", f"ledger={made / 'ledger.csv'}"],
        "calibrate": [f"run={made / 'one'}"],
        "blend": [f"runs={made / 'one'},{made / 'two'}", "overwrite=true"],
        "compare": [str(made), "by=max_tokens"],
    }

    def work(command: str) -> Callable[[Path], object]:
        def call(_: Path) -> None:
            try:
                import_module(f"nexttoken.commands.{command}").main(lines[command])
            finally:
                shutil.rmtree(made / "blend", ignore_errors=True)
                shutil.rmtree(made / "report", ignore_errors=True)

        return call

    return [work(command) for command in lines]
