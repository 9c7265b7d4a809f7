"""Commands of the documentation that are not run here, each with its reason, and what has to happen before others."""

import re

HUB = "needs the model hub"
INSTALLS = "installs packages"
OWN = "names a file of the reader's own"
SUITE = "is a suite of tests of its own"
SKIPPED = {
    r"^make (test|check|docs|fuzz|chaos|mutants|coverage|test-slow|test-kernel)\b|-m fuzz |-m pytest ": SUITE,
    r"^make (real|lock|audit|sbom)\b": INSTALLS,
    r"pip install|^\.venv-vllm|-m venv": INSTALLS,
    r"\[group=choice|\[run=output": "is a pattern, not a command",
    r"input_dir=\.\.\.|name_or_path=<folder>|<folder or hub name>|path/to|models/some-model": OWN,
    r"<the model|passages\.jsonl|image=image\.txt|=/kaggle/input": OWN,
    r"nexttoken kaggle|GOOGLE_API_KEY|retriever=web": "needs an account",
    r"^torchrun": "needs two machines",
    r"^srun|launcher=submitit|launcher=ray": "needs a cluster",
    r"^python train.py .*(model=(?!smollm2\b)(gemma|llama|qwen|mistral|open_calm|smollm2_135m)|gemma2_9b_qlora)": HUB,
    r"labels model=|quantize model=|network=true|base=models/|lmsys_lora": HUB,
    r"weights smollm2": "fetches 98 MB; the tests marked real do",
    r"benchmarks\.gpu(?! shape=tiny)": "needs a GPU",
    r"benchmarks\.(inference|training|release)": "measures for many minutes",
    r"kaggle-llm-science-exam": "needs the data of that competition",
    r"versions=oldest": "installs 6 GB; make test-kernel does",
}
# What a page asks for in words before a command.
BEFORE = {
    r"teacher=output/lmsys/a_without%fold": [
        f"python train.py -m fold={others} without_fold={fold} name=a_without{fold}"
        for fold, others in enumerate(("1,2,3,4", "0,2,3,4", "0,1,3,4", "0,1,2,4", "0,1,2,3"))
    ],
    r"predict\.py run=output/instruct/lora": [
        "python train.py task=instruct fold=0 input_dir=../shared/data/instruct 'task.train_files=[seed_tasks.jsonl]'"
        " 'task.test_files=[user_oriented_instructions.jsonl]' model.name_or_path=../shared/models/stories260k"
        " adapter=lora name=lora"
    ],
    r"forecast .*input_dir=output/generated": ["python -m samples.preferences output_dir=output/generated rows=400"],
    r"compare output/lmsys by=head": ["python train.py -m sweep=heads output_dir=output/compared"],
    r"compare output/lmsys by=fit.learning_rate": [
        "python train.py -m fold=0,1 fit.learning_rate=1e-3,2e-3 output_dir=output/compared"
    ],
    r"kernel rehearse kernel rows=25000": [
        "python -m nexttoken kernel run=output/lmsys/trained out=kernel id=someone/a-kernel"
    ],
}


def reason_to_skip(text: str) -> str | None:
    """The reason why a command is not run here, None where it is run."""
    return next((reason for pattern, reason in SKIPPED.items() if re.search(pattern, text)), None)


def commands_before(text: str) -> list[str]:
    """The commands that have to be run before a command."""
    return next((before for pattern, before in BEFORE.items() if re.search(pattern, text)), [])
