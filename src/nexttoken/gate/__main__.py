"""What searching for every question, none, or only the unsure ones is worth: python -m nexttoken.gate key=value ...

python -m nexttoken.gate run=output/quiz/<name>
    max_share=0.5   the chosen thresholds search for at most this share of the questions
    tolerance=0.5   and for fewer where that costs less than so many standard errors of accuracy
    out=...         where gate.csv, gate.json and gate.png go; the run folder, where predict.py finds the thresholds
    again=true      ask again what gate.csv holds already (after a change of the corpus)
    base=...        where the base model lies on this machine, as for predict.py
    input_dir=...   where the run's data lies on this machine

Every held-out question is asked without and with passages by the fold that was not trained on it; what any gate would
have answered follows from that. The thresholds of a fold's questions are chosen on the other folds, so that their
score is honest; those in gate.json are chosen on all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nexttoken.arguments import key_values, run
from nexttoken.errors import UserError

if TYPE_CHECKING:
    from nexttoken.gating.gate import Gate
    from nexttoken.gating.thresholds import CrossChosen
    from nexttoken.gating.trial import Decision, Trial
    from nexttoken.loaded import LoadedRun

DEFAULTS = {
    "run": "",
    "max_share": "0.5",
    "tolerance": "0.5",
    "out": "",
    "again": "false",
    "base": "",
    "input_dir": "",
}
NEVER, ALWAYS, CONFIGURED, CHOSEN = "never", "always", "gated (the run's thresholds)", "gated (chosen out of fold)"
HEADER = ["policy", "accuracy", "log loss", "searched", "ms per question", "accuracy − always"]
PACKAGES = ("nexttoken", "torch", "transformers", "numpy")


@dataclass(frozen=True)
class Arguments:
    """The run, how much may be searched, and where the result goes."""

    run: Path
    max_share: float
    tolerance: float
    out: Path
    again: bool
    base: str | None
    input_dir: str | None

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> "Arguments":
        """Raises UserError for what is missing and for a value of another kind."""
        values = key_values(arguments, DEFAULTS)
        if not values["run"]:
            raise UserError("run= is missing; write run=output/<task>/<name>")
        if values["again"] not in ("true", "false"):
            raise UserError(f"again={values['again']!r} is not accepted: expected true or false")
        folder = Path(values["run"])
        return cls(
            folder,
            _number(values, "max_share", 1.0, "a share of the questions, 0 to 1"),
            _number(values, "tolerance", float("inf"), "standard errors, 0 or more"),
            Path(values["out"] or folder).expanduser(),
            values["again"] == "true",
            values["base"] or None,
            values["input_dir"] or None,
        )


def _number(values: Mapping[str, str], key: str, highest: float, expected: str) -> float:
    try:
        number = float(values[key])
    except ValueError:
        number = -1.0
    if not 0 <= number <= highest:
        raise UserError(f"{key}={values[key]!r} is not accepted: expected {expected}")
    return number


def main(arguments: Sequence[str]) -> None:
    given = Arguments.parse(arguments)
    from nexttoken.loaded import LoadedRun
    from nexttoken.runs import RunFolder

    loaded = LoadedRun.load(RunFolder(given.run), given.input_dir, base=given.base)
    require_retriever(loaded)
    given.out.mkdir(parents=True, exist_ok=True)  # before hours of work, not after
    from nexttoken.gate.both_ways import ask_both_ways

    trial = ask_both_ways(loaded, given.out / "gate.csv", given.again)
    print(report(trial, configured_gates(loaded), given, keeps_confident(loaded)))


def require_retriever(loaded: "LoadedRun") -> None:
    """Raises UserError for a run that cannot search."""
    from nexttoken.retrieval.none import Nothing

    if isinstance(loaded.parts.search.retriever, Nothing):
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


def keeps_confident(loaded: "LoadedRun") -> bool:
    return bool(getattr(loaded.parts.inference, "keep_confident", True))


def report(trial: "Trial", configured: "Mapping[int, Gate]", given: Arguments, keep_confident: bool) -> str:
    """Choose the gate, write gate.json and gate.png; return the table of what each policy came to."""
    from nexttoken.gating.thresholds import cross_chosen, fit_gate

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
            f"chosen on all of them: {thresholds}\nwrote gate.csv, gate.json and gate.png to {given.out}",
        ]
    )


def policies(
    trial: "Trial", gate: "Gate", configured: "Mapping[int, Gate]", chosen: "CrossChosen"
) -> "dict[str, Decision]":
    """What every policy decides, by its name in the table."""
    from nexttoken.gating.gate import ABOVE
    from nexttoken.gating.trial import decide, decide_by_part

    never, always = replace(gate, min_top1=0.0, min_margin=0.0), replace(gate, min_top1=ABOVE, min_margin=0.0)
    decisions = {NEVER: decide(trial, never), ALWAYS: decide(trial, replace(always, keep_confident=False))}
    if gate.keep_confident:
        decisions["always, the surer answer taken"] = decide(trial, always)
    if configured:
        decisions[CONFIGURED] = decide_by_part(trial, trial.folds, configured)
    return {**decisions, CHOSEN: chosen.decision}


def table(trial: "Trial", decisions: "Mapping[str, Decision]") -> str:
    from nexttoken.gating.trial import difference, score
    from nexttoken.report.markdown import markdown

    rows = []
    for name, decision in decisions.items():
        outcome = score(trial, decision)
        points, error = (100 * value for value in difference(trial, decision, decisions[ALWAYS]))
        beside = "" if name == ALWAYS else f"{points:+.1f} ± {error:.1f}"
        cells = [f"{outcome.accuracy:.1%}", f"{outcome.log_loss:.4f}", f"{outcome.share_searched:.1%}"]
        rows.append([name, *cells, f"{1000 * outcome.seconds:.1f}", beside])
    return markdown(HEADER, rows)


def save(
    trial: "Trial", gate: "Gate", chosen: "CrossChosen", decisions: "Mapping[str, Decision]", given: Arguments
) -> None:
    """Write gate.json: the gate that predict.py uses, how it was chosen, and what it is worth."""
    from nexttoken.files import write_json
    from nexttoken.gating.trial import score

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
    write_json({**asdict(gate), "chosen": how, "outcomes": outcomes, "versions": versions}, given.out / "gate.json")


def draw(trial: "Trial", gate: "Gate", decisions: "Mapping[str, Decision]", given: Arguments) -> None:
    from nexttoken.gating.trial import score
    from nexttoken.report.gate_plot import gate_plot

    outcomes = {name: score(trial, decision) for name, decision in decisions.items()}
    levels = {name: outcomes[name] for name in (NEVER, ALWAYS)}
    points = {name: outcomes[name] for name in (CHOSEN, CONFIGURED) if name in outcomes}
    gate_plot(trial, gate, levels, points, given.out / "gate.png", given.run.resolve().name)


if __name__ == "__main__":
    run(main, __doc__)
