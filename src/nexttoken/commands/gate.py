"""Choose when a run searches for passages, and compare searching always, never and only for unsure answers.

python -m nexttoken gate run=output/quiz/<name>

Arguments:
  run=...          the run folder; the run needs a retriever
  max_share=0.5    search for at most this share of the questions (0 to 1)
  tolerance=0.5    search for fewer where accuracy falls by less than this many standard errors (inf: never search)
  out=...          folder for gate.csv, gate.json and gate.png (default: the run folder, where predict.py reads them)
  again=true       answer the questions again although gate.csv has them, as after a change of the corpus
  base=...         folder or hub name of the base model on this machine
  input_dir=...    folder of the run's data on this machine
  trust_remote_code=true   run the code that comes with the model

Each fold answers its held-out questions without and with passages. The outcome of any thresholds follows from these
answers. A fold's score is honest: it is measured with thresholds that were chosen on the other folds. The thresholds
in gate.json are chosen on all folds, and predict.py uses them for a run with inference=gated_retrieval.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeFloat

from nexttoken.commands.arguments import RunArguments
from nexttoken.data.whole_files import make_folder
from nexttoken.errors import UserError
from nexttoken.inference import ConfidenceGated
from nexttoken.inference.gate import Gate, Trial, score
from nexttoken.inference.gate_thresholds import cross_chosen, fit_gate
from nexttoken.inference.retrieval.search import Nothing
from nexttoken.report.gate import gate_plot, policies, table
from nexttoken.runs.records import read_gate, save_gate

PACKAGES = ("nexttoken", "torch", "transformers", "numpy")
RULE = "fewest searches within `tolerance` standard errors of the best accuracy that `max_share` allows"


class GateArguments(RunArguments):
    max_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    tolerance: NonNegativeFloat = 0.5
    out: Path | None = None
    again: bool = False

    @property
    def folder(self) -> Path:
        """The folder of gate.csv, gate.json and gate.png."""
        return (self.out or self.run).expanduser()


def main(arguments: Sequence[str]) -> None:
    given = GateArguments.parse(arguments)
    loaded = given.load()
    inference = loaded.parts.inference
    if isinstance(loaded.search.retriever, Nothing):
        raise UserError(
            f"{loaded.folder.path} was trained without a retriever, so there is nothing to search with;"
            " train it with one: python train.py ... inference=gated_retrieval retriever=bm25"
        )
    make_folder(given.folder)  # before hours of work, not after
    from nexttoken.commands.gate_answers import answer_both_ways

    trial = answer_both_ways(loaded, given.folder / "gate.csv", given.again)
    restored = [inference.restored(fold.state()) for fold in loaded.folds]  # each with the fold's temperature
    gated = {n: one for n, one in zip(loaded.numbers, restored, strict=True) if isinstance(one, ConfidenceGated)}
    keep_confident = bool(getattr(inference, "keep_confident", True))
    print(report(trial, {int(number): one.gate for number, one in gated.items()}, given, keep_confident))
    if not gated:
        gate, kind = read_gate(given.folder / "gate.json"), type(inference).__name__
        keys = f"inference.min_top1={gate.min_top1:.4g} inference.min_margin={gate.min_margin:.4g}"
        print(
            f"predict.py will not use these thresholds: the inference of this run is {kind}; train it with"
            f" inference=gated_retrieval {keys}"
        )


def report(trial: Trial, configured: Mapping[int, Gate], given: GateArguments, keep_confident: bool) -> str:
    """Choose the gate, write gate.json and gate.png, and return the table of policies.

    `configured` has the gate of each fold by the run's own thresholds; it is empty for a run without a gate.
    """
    chosen = cross_chosen(trial, keep_confident, given.max_share, given.tolerance)
    gate = fit_gate(trial, keep_confident, given.max_share, given.tolerance)
    decisions = policies(trial, gate, configured, chosen)
    outcomes = {name: score(trial, decision) for name, decision in decisions.items()}
    method = {
        "rule": RULE,
        "max_share": given.max_share,
        "tolerance": given.tolerance if given.tolerance != float("inf") else "inf",
        "num_rows": len(trial.ids),
        "gates_of_the_others": {str(part): asdict(one) for part, one in chosen.gates.items()},
        "parts": chosen.parts,
    }
    details = {
        "chosen": method,
        "outcomes": {name: asdict(outcome) for name, outcome in outcomes.items()},
        "versions": {name: version(name) for name in PACKAGES},
    }
    save_gate(gate, details, given.folder / "gate.json")
    gate_plot(trial, gate, outcomes, given.folder / "gate.png", given.run.resolve().name)
    thresholds = ", ".join(f"{name}={value:.4g}" for name, value in asdict(gate).items() if name != "keep_confident")
    return (
        f"{table(trial, decisions)}\n\n"
        f"{len(trial.ids):,} held-out questions, passages were found for {trial.found.mean():.1%} of them. "
        "Accuracy − always: on the same questions ± its standard error.\n\n"
        f"chosen on all of them: {thresholds}\nwrote gate.csv, gate.json and gate.png to {given.folder}"
    )
