"""Choose when a run asks a second time, and compare always, never and only for unsure answers.

python -m nexttoken gate run=output/quiz/<name>      with passages; the run needs a retriever
python -m nexttoken gate run=output/lmsys/<name>     with the two answers of a pair swapped

Arguments:
  run=...          the run folder
  max_share=0.5    ask at most this share of the rows again (0 to 1)
  tolerance=0.5    ask fewer where the score falls by less than this many standard errors (inf: never ask again)
  out=...          folder for gate.csv, gate.json and gate.png (default: the run folder, where predict.py reads them)
  again=true       answer the rows again although gate.csv has them, as after a change of the corpus
  base=...         folder or hub name of the base model on this machine
  input_dir=...    folder of the run's data on this machine
  trust_remote_code=true   run the code that comes with the model

Each fold answers its held-out rows both ways. The outcome of any thresholds follows from these answers. A fold's score
is honest: it is measured with thresholds that were chosen on the other folds. The thresholds in gate.json are chosen on
all folds; predict.py uses them with inference=gated_retrieval or inference=adaptive_swap. The score is by log loss
where that is the task's metric, else by accuracy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, NonNegativeFloat

from nexttoken.commands.arguments import RunArguments
from nexttoken.data.whole_files import make_folder
from nexttoken.errors import UserError
from nexttoken.inference import AdaptiveSwap, ConfidenceGated, WithPassages
from nexttoken.inference.candidates import Candidates
from nexttoken.inference.gate import Decision, Gate, Trial, score
from nexttoken.inference.gate_thresholds import cross_chosen, fit_gate
from nexttoken.inference.retrieval.search import Nothing
from nexttoken.report.gate import gate_plot, policies, table
from nexttoken.report.terminal import show
from nexttoken.runs.config import Changes
from nexttoken.runs.records import save_gate

if TYPE_CHECKING:
    from nexttoken.runs.loaded import LoadedRun

PACKAGES = ("nexttoken", "torch", "transformers", "numpy")
RULE = "fewest second queries within `tolerance` standard errors of the best score that `max_share` allows"
NAMES = {AdaptiveSwap: "adaptive_swap", ConfidenceGated: "gated_retrieval"}


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
    refuse_ungated(loaded)
    make_folder(given.folder)  # before hours of work, not after
    from nexttoken.commands.gate_answers import answer_both_ways, asks_swapped, save_decided

    trial, inference = answer_both_ways(loaded, given.folder / "gate.csv", given.again), loaded.parts.inference
    restored = [inference.restored(fold.state()) for fold in loaded.folds]  # each with the fold's temperature
    kind = AdaptiveSwap if asks_swapped(loaded) else ConfidenceGated
    gated = {n: one for n, one in zip(loaded.numbers, restored, strict=True) if isinstance(one, kind)}
    keep_confident = bool(getattr(inference, "keep_confident", kind is ConfidenceGated))
    page, decision = report(trial, {int(number): one.gate for number, one in gated.items()}, given, keep_confident)
    show(page)
    if given.out is None:
        changes = Changes() if gated else Changes(inference=gated_node(loaded, kind))
        print(save_decided(given.load(changes), trial, decision))
    if not gated:
        print(f"predict.py uses these thresholds with inference={NAMES[kind]}")


def refuse_ungated(loaded: "LoadedRun") -> None:
    """Raise UserError for a run that has neither pairs to swap nor passages to search for."""
    if "pairs" in getattr(loaded.parts.task, "offers", ()):
        if loaded.parts.settings.correction or isinstance(loaded.parts.inference, Candidates):
            raise UserError(
                f"{loaded.path} corrects its answers or scores candidates, and a gate of swapped pairs does neither;"
                " use correction=none and head=label"
            )
    elif isinstance(loaded.search.retriever, Nothing):
        raise UserError(
            f"{loaded.folder.path} was trained without a retriever, so there is nothing to search with;"
            " train it with one: python train.py ... inference=gated_retrieval retriever=bm25"
        )


def gated_node(loaded: "LoadedRun", kind: type) -> dict[str, Any]:
    """The inference that uses a gate of this kind on a run whose own does not, as predict.py is given it."""
    own = loaded.parts.settings.inference
    inner = own["ask"] if isinstance(loaded.parts.inference, WithPassages) else own
    passages = {"search": {}, "ask": inner} if kind is ConfidenceGated else {}
    return {"_target_": f"nexttoken.inference.{kind.__name__}", **passages}


def report(
    trial: Trial, configured: Mapping[int, Gate], given: GateArguments, keep_confident: bool
) -> tuple[str, Decision]:
    """Choose the gate, write gate.json and gate.png; return the table of policies, and the decision out of fold.

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
    found = "" if trial.found.all() else f", passages were found for {trial.found.mean():.1%} of them"
    page = (
        f"{table(trial, decisions)}\n\n{len(trial.ids):,} held-out rows{found}. The last column: on the same rows"
        " ± its standard error.\n\n"
        f"chosen on all of them: {thresholds}\nwrote gate.csv, gate.json and gate.png to {given.folder}"
    )
    return page, chosen.decision
