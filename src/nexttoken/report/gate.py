"""The table of a gate: what never searching, always searching and gates in between come to on the same questions."""

from collections.abc import Mapping
from dataclasses import replace

from nexttoken.inference.gate import ABOVE, Gate
from nexttoken.inference.gate_thresholds import CrossChosen
from nexttoken.inference.gate_trial import Decision, Trial, decide, decide_by_part, difference, score
from nexttoken.report.markdown import markdown

NEVER, ALWAYS, CONFIGURED, CHOSEN = "never", "always", "gated (the run's thresholds)", "gated (chosen out of fold)"
HEADER = ["policy", "accuracy", "log loss", "searched", "ms per question", "accuracy − always"]


def policies(trial: Trial, gate: Gate, configured: Mapping[int, Gate], chosen: CrossChosen) -> dict[str, Decision]:
    """What every policy decides, by its name in the table."""
    never, always = replace(gate, min_top1=0.0, min_margin=0.0), replace(gate, min_top1=ABOVE, min_margin=0.0)
    decisions = {NEVER: decide(trial, never), ALWAYS: decide(trial, replace(always, keep_confident=False))}
    if gate.keep_confident:
        decisions["always, the surer answer taken"] = decide(trial, always)
    if configured:
        decisions[CONFIGURED] = decide_by_part(trial, trial.folds, configured)
    return {**decisions, CHOSEN: chosen.decision}


def table(trial: Trial, decisions: Mapping[str, Decision]) -> str:
    rows = []
    for name, decision in decisions.items():
        outcome = score(trial, decision)
        points, error = (100 * value for value in difference(trial, decision, decisions[ALWAYS]))
        beside = "" if name == ALWAYS else f"{points:+.1f} ± {error:.1f}"
        cells = [f"{outcome.accuracy:.1%}", f"{outcome.log_loss:.4f}", f"{outcome.share_searched:.1%}"]
        rows.append([name, *cells, f"{1000 * outcome.seconds:.1f}", beside])
    return markdown(HEADER, rows)
