"""The section of gates: the curve of score against rows asked again, as `python -m nexttoken gate` drew it."""

from base64 import b64encode

from nexttoken.report.page.chapter import Chapter
from nexttoken.report.page.section import Section, render
from nexttoken.runs.records import read_gate

MAX_BYTES = 300_000  # of a picture, so that the page stays small


def section(chapter: Chapter) -> Section | None:
    """The pictures of the runs that have a gate; None without any. Raises UserError for a gate.json that is broken."""
    gates = []
    for run in chapter.runs:
        path, picture = run.folder / "gate.json", run.folder / "gate.png"
        if path.is_file() and picture.is_file() and picture.stat().st_size <= MAX_BYTES:
            gate = read_gate(path)
            data = b64encode(picture.read_bytes()).decode("ascii")
            gates.append({"name": run.title, "top1": gate.min_top1, "margin": gate.min_margin, "data": data})
    return Section("gate", "Gate", render("gate.html.jinja", gates=gates)) if gates else None
