"""The worth of searching for every question, for none, and for the unsure ones alone.

python -m nexttoken gate run=output/quiz/<name>
    max_share=0.5   the chosen thresholds search for at most this share of the questions
    tolerance=0.5   and for fewer where that costs less than so many standard errors of accuracy
    out=...         where gate.csv, gate.json and gate.png go; the run folder, where predict.py finds the thresholds of
                    a run with inference=gated_retrieval
    again=true      ask again what gate.csv holds already (after a change of the corpus)
    base=...        where the base model lies on this machine, as for predict.py
    input_dir=...   where the run's data lies on this machine

Every held-out question is asked without and with passages by the fold that was not trained on it; what any gate would
have answered follows from that. The thresholds of a fold's questions are chosen on the other folds, so that their
score is honest; those in gate.json are chosen on all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, NonNegativeFloat

from nexttoken.commands.arguments import Arguments, RunPath
from nexttoken.errors import UserError

if TYPE_CHECKING:
    from nexttoken.inference.gate import Gate
    from nexttoken.inference.gate_thresholds import CrossChosen
    from nexttoken.inference.gate_trial import Decision, Trial
    from nexttoken.runs.loaded import LoadedRun

PACKAGES = ("nexttoken", "torch", "transformers", "numpy")


class GateArguments(Arguments):
    run: RunPath
    max_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    tolerance: NonNegativeFloat = 0.5  # inf: never search
    out: Path | None = None
    again: bool = False
    base: str | None = None
    input_dir: str | None = None

    @property
    def folder(self) -> Path:
        """The folder of gate.csv, gate.json and gate.png."""
        return (self.out or self.run).expanduser()


def main(arguments: Sequence[str]) -> None:
    given = GateArguments.parse(arguments)
    from nexttoken.runs.folder import RunFolder
    from nexttoken.runs.loaded import LoadedRun

    loaded = LoadedRun.load(RunFolder(given.run), given.input_dir, base=given.base)
    require_retriever(loaded)
    given.folder.mkdir(parents=True, exist_ok=True)  # before hours of work, not after
    from nexttoken.commands.gate_answers import ask_both_ways

    trial = ask_both_ways(loaded, given.folder / "gate.csv", given.again)
    print(report(trial, configured_gates(loaded), given, keeps_confident(loaded)))
    print_use(loaded, given.folder / "gate.json")


def require_retriever(loaded: "LoadedRun") -> None:
    """Raises UserError for a run that cannot search."""
    from nexttoken.inference.retrieval.none import Nothing

    if isinstance(loaded.search.retriever, Nothing):
        raise UserError(
            f"{loaded.folder.path} was trained without a retriever, so there is nothing to search with;"
            " train it with one: python train.py ... inference=gated_retrieval retriever=bm25"
        )


def configured_gates(loaded: "LoadedRun") -> "dict[int, Gate]":
    """Each fold's gate by the run's own thresholds and the fold's own temperature; none where the run has no gate."""
    from nexttoken.inference import ConfidenceGated

    folds = dict(zip(loaded.numbers, loaded.folds, strict=True))
    ways = {number: loaded.parts.inference.restored(fold.state()) for number, fold in folds.items()}
    return {number: way.gate for number, way in ways.items() if isinstance(way, ConfidenceGated)}


def print_use(loaded: "LoadedRun", path: Path) -> None:
    """Say so where predict.py will not use the thresholds: only a way of asking with a gate has a place for them."""
    from nexttoken.inference import ConfidenceGated
    from nexttoken.runs.records import read_gate

    if isinstance(loaded.parts.inference, ConfidenceGated):
        return
    gate, way = read_gate(path), type(loaded.parts.inference).__name__
    keys = " ".join(f"inference.{name}={getattr(gate, name):.4g}" for name in ("min_top1", "min_margin"))
    print(
        f"predict.py will not use these thresholds: this run asks with {way}; train it with"
        f" inference=gated_retrieval {keys}"
    )


def keeps_confident(loaded: "LoadedRun") -> bool:
    return bool(getattr(loaded.parts.inference, "keep_confident", True))


def report(trial: "Trial", configured: "Mapping[int, Gate]", given: GateArguments, keep_confident: bool) -> str:
    """Choose the gate, write gate.json and gate.png; return the table of what each policy came to."""
    from nexttoken.inference.gate_thresholds import cross_chosen, fit_gate
    from nexttoken.report.gate_table import policies, table

    chosen = cross_chosen(trial, keep_confident, given.max_share, given.tolerance)
    gate = fit_gate(trial, keep_confident, given.max_share, given.tolerance)
    decisions = policies(trial, gate, configured, chosen)
    save(trial, gate, chosen, decisions, given)
    draw(trial, gate, decisions, given)
    thresholds = ", ".join(f"{name}={value:.4g}" for name, value in asdict(gate).items() if name != "keep_confident")
    return "\n\n".join(
        [
            table(trial, decisions),
            f"{len(trial.ids):,} held-out questions, passages were found for {trial.found.mean():.1%} of them. "
            "Accuracy − always: on the same questions ± its standard error.",
            f"chosen on all of them: {thresholds}\nwrote gate.csv, gate.json and gate.png to {given.folder}",
        ]
    )


def save(
    trial: "Trial", gate: "Gate", chosen: "CrossChosen", decisions: "Mapping[str, Decision]", given: GateArguments
) -> None:
    """Write gate.json: the gate that predict.py uses, how it was chosen, and what it is worth."""
    from nexttoken.inference.gate_trial import score
    from nexttoken.runs.records import save_gate

    how: dict[str, Any] = {
        "rule": "fewest searches within `tolerance` standard errors of the best accuracy that `max_share` allows",
        "max_share": given.max_share,
        "tolerance": given.tolerance if given.tolerance != float("inf") else "inf",
        "num_rows": len(trial.ids),
        "gates_of_the_others": {str(part): asdict(one) for part, one in chosen.gates.items()},
        "parts": chosen.parts,
    }
    outcomes = {name: asdict(score(trial, decision)) for name, decision in decisions.items()}
    versions = {name: version(name) for name in PACKAGES}
    details = {"chosen": how, "outcomes": outcomes, "versions": versions}
    save_gate(gate, details, given.folder / "gate.json")


def draw(trial: "Trial", gate: "Gate", decisions: "Mapping[str, Decision]", given: GateArguments) -> None:
    from nexttoken.inference.gate_trial import score
    from nexttoken.report.gate_plot import gate_plot
    from nexttoken.report.gate_table import ALWAYS, CHOSEN, CONFIGURED, NEVER

    outcomes = {name: score(trial, decision) for name, decision in decisions.items()}
    levels = {name: outcomes[name] for name in (NEVER, ALWAYS)}
    points = {name: outcomes[name] for name in (CHOSEN, CONFIGURED) if name in outcomes}
    gate_plot(trial, gate, levels, points, given.folder / "gate.png", given.run.resolve().name)
