"""The first section of a chapter: the best run, the worst class and what to try next, in a few sentences."""

from nexttoken.errors import counted
from nexttoken.metrics.intervals import score_interval
from nexttoken.report.markdown import digits_for
from nexttoken.report.page.chapter import Chapter
from nexttoken.report.page.class_scores import worst_class_sentence
from nexttoken.report.page.next_steps import next_steps
from nexttoken.report.page.outcome import Outcome
from nexttoken.report.page.section import Section, interval, number, render, row_link
from nexttoken.report.tables import reference_key
from nexttoken.runs.scored_runs import probabilities

NUM_WORST = 3  # rows that are named


def section(chapter: Chapter) -> Section:
    """The sentences and the advice."""
    outcome = Outcome.of(chapter.runs[0], chapter.groups[0])
    lead = [one.sentence for one in chapter.pairs if (one.one, one.other) == (0, 1)]
    sentences = [_best_sentence(chapter), *lead, worst_class_sentence(outcome)]
    html = render("short.html.jinja", sentences=sentences, worst=_worst_rows(chapter), advices=next_steps(chapter))
    return Section("short", "In short", html)


def _worst_rows(chapter: Chapter) -> list[dict[str, str]]:
    """The best run's rows with the highest loss: id, link and words."""
    oof, names = chapter.runs[0].oof, chapter.classes
    worst = oof.sort_values("loss", ascending=False, kind="stable").head(NUM_WORST)
    decided = probabilities(worst.drop(columns="loss")).argmax(axis=1)
    return [
        {"id": row_id, "link": row_link(chapter.key, row_id), "words": f"{names[label]} taken for {names[guess]}"}
        for row_id, label, guess in zip(worst["id"], worst["label"], decided, strict=True)
    ]


def _best_sentence(chapter: Chapter) -> str:
    run, metric = chapter.runs[0], chapter.metric
    found = score_interval(metric, run.scored(metric), chapter.groups[0].tolist())
    digits = digits_for(found)
    text = f"The best run is {run.title}: {metric.title} {number(run.score(metric), digits)}"
    if found is not None:
        text += f" (95 % interval {interval(found, digits)})"
    levels = {"the class prior": "prior_log_loss", "the baseline": "baseline_log_loss"}
    known = {name: run.weighted(reference_key(key, metric)) for name, key in levels.items()}
    beside = [f"{name} has {level:.{digits}f}" for name, level in known.items() if level is not None]
    folds = counted(len(run.folds), "fold")
    return f"{text} on {len(run.oof):,} rows of {folds}; {' and '.join(beside)}." if beside else f"{text}."
