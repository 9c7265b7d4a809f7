"""The page of a blend: scores of its members, of equal and of fitted weights on the same rows, and the weights."""

from nexttoken.report.markdown import difference_cell, interval_cell, plain
from nexttoken.report.tables import out_of_fold_table
from nexttoken.runs.blend import Blend
from nexttoken.runs.blend_fit import Members
from nexttoken.runs.calibration_fit import gain_of
from nexttoken.runs.fold_metrics import LOG_LOSS
from nexttoken.runs.scored_runs import Run


def blend_page(members: Members, blended: Run, blend: Blend) -> str:
    """The table of scores, the weights, and the gain over the best member and over equal weights."""
    parts = dict(zip(members.names, map(members.run, members.tables), strict=True))
    ways = {"equal weights": False} | ({"fitted weights": True} if len(members.runs[0].folds) > 1 else {})
    spaces = dict.fromkeys([blend.of, "logits", "probabilities"])
    pooled = {f"{way}, {of}": members.blended(of, fitted) for of in spaces for way, fitted in ways.items()}
    metric = blended.metric if blend.of == "ranks" else LOG_LOSS
    best = min(parts, key=lambda name: (-1 if metric.higher_is_better else 1) * parts[name].score(metric))
    rows = f"{len(blended.oof):,} out-of-fold rows, folds {' '.join(str(fold.number) for fold in blended.folds)}"
    weights = ", ".join(f"{plain(member.name)} {member.weight:.3f}" for member in blend.members)
    lines = [rows, "", out_of_fold_table(parts | pooled), "", f"weights ({blend.of}): {weights}"]
    for name, other in ((best, parts[best]), (f"equal weights, {blend.of}", pooled[f"equal weights, {blend.of}"])):
        gain, interval = gain_of(blended, other, metric)
        lines.append(
            f"gain in {metric.title} over {plain(name)}: {difference_cell(gain)} (95 % interval"
            f" {interval_cell(interval, '+')})"
        )
    return "\n".join(lines)
