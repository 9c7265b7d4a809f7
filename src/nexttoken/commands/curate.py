"""Clean a training set in counted steps, and write it with a manifest and a report.

python -m nexttoken curate input_dir=input/instruct train_transforms=curate_ja out=input/instruct-curated
python -m nexttoken curate task=dialogue input_dir=input/dialogues train_transforms=curate_en out=input/dialogues-en

Arguments:
  input_dir=...           folder of the training set
  train_transforms=...    the steps: curate_ja, curate_en or other steps of transforms.curation
  out=...                 new folder for train.jsonl, manifest.json and report.md; all of them are written, or none
  task=instruct           task whose files are read: instruct or dialogue
  licence=...             licence of the training set, such as CC-BY-4.0 (default: read from its LICENSE or README file)
  skip_faulty=true        leave out lines that cannot be read; they are listed and counted
  processes=2             number of processes that read and clean rows (1 to 64)
  limit_rows=...          number of rows to read, for a trial on the first ones (default: all)
  key=value ...           any other setting of train.py
"""

import hashlib
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from nexttoken.commands.arguments import Arguments, NewPath
from nexttoken.commands.entry import compose_settings
from nexttoken.data.files import matching, whole_file, write_json
from nexttoken.data.json_lines import dump_json
from nexttoken.data.whole_files import put_in_place, scratch_folder
from nexttoken.errors import UserError
from nexttoken.report.markdown import markdown, plain
from nexttoken.report.terminal import show
from nexttoken.settings import Settings
from nexttoken.transforms.curation.step import Step
from nexttoken.transforms.curation.stream import curate
from nexttoken.types import DIALOGUE, INPUT, INSTRUCTION, Example

log = logging.getLogger("nexttoken.commands.curate")
TEXT_ENDINGS = ("", ".txt", ".md", ".rst")
BLOCK = 1 << 20  # bytes read at once
UNKNOWN = "unknown – state it with licence=..."
FIRST_LINE = re.compile(r"^\s*(\S.*?)\s*$", re.MULTILINE)
LICENCE_LINE = re.compile(r"^[\s#*_-]*licen[cs]e\**\s*[:：]\s*\**\s*(\S.*?)\s*$", re.IGNORECASE | re.MULTILINE)
NOT_WRITTEN = frozenset({"file", DIALOGUE})  # tags that reading adds again


class CurateArguments(Arguments):
    out: Annotated[NewPath, Field(examples=["input/<name>"])]
    licence: str = ""
    processes: Annotated[int, Field(ge=1, le=64)] = 2
    skip_faulty: bool | None = None
    task: str = "instruct"
    overrides: tuple[str, ...] = ()


def main(arguments: Sequence[str]) -> None:
    given = CurateArguments.parse(arguments)
    from nexttoken.data.targets import make

    faulty = [] if given.skip_faulty is None else [f"task.skip_faulty={given.skip_faulty}"]
    settings = compose_settings([f"task={given.task}", *given.overrides, *faulty])
    steps = require_steps(settings, make(settings.train_transforms, "train_transforms"))
    task, limit = make(settings.task, "task"), settings.limit_rows
    with scratch_folder(given.out) as folder, log_messages() as messages:
        new = folder / "new"
        files = describe_files(task, Path(settings.input_dir))
        if limit:
            log.info("only the first %d rows are read, for limit_rows=%d", limit, limit)
        source = task.stream("train") if hasattr(task, "stream") else iter(task.read("train"))
        num_rows = limit or sum(file["num_lines"] for file in files)
        rows = curate(islice(source, limit), steps, folder, num_rows, given.processes)
        reports = {name: step.report() for name, step in steps.items()}
        first, last = (list(reports.values())[place] for place in (0, -1))
        manifest = {
            "licence": given.licence or find_licence(Path(settings.input_dir)),
            "input_dir": settings.input_dir,
            "files": files,
            "task": settings.task,
            "reading": messages.getvalue().splitlines(),
            "rows": {"read": first["kept"] + first["dropped"], "kept": last["kept"]},
            "steps": {name: {"settings": settings.train_transforms[name]} | one for name, one in reports.items()},
        }
        new.mkdir()
        write_rows(rows.rows(), new / "train.jsonl")
        write_json(manifest, new / "manifest.json")
        (new / "report.md").write_text(page(manifest), encoding="utf-8")
        rows.close()
        put_in_place(new, given.out)
    show(summary(manifest, given.out))


def require_steps(settings: Settings, transforms: dict[str, Any]) -> dict[str, Step]:
    """Raises UserError for no step, for a transform that is not a curation step, and for wrong settings of a step."""
    if settings.transforms:
        raise UserError(f"transforms ({', '.join(settings.transforms)}) are train.py's alone; leave them out here")
    if not transforms:
        raise UserError("train_transforms names no step; add train_transforms=curate_ja")
    for name, transform in transforms.items():
        if not isinstance(transform, Step):
            named = f"train_transforms.{name} ({type(transform).__name__})"
            raise UserError(f"{named} is no step of nexttoken.transforms.curation; use curate_ja")
        transform.check()
    return transforms


@contextmanager
def log_messages() -> Iterator[StringIO]:
    """Collect the lines that reading the task's files logs, such as the faulty lines that were left out."""
    logger, messages = logging.getLogger("nexttoken"), StringIO()
    handler, level = logging.StreamHandler(messages), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield messages
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def summary(manifest: dict[str, Any], out: Path) -> str:
    """The counts of each step, the steps' notices, and the number of rows written."""
    steps, rows = manifest["steps"], manifest["rows"]
    lines = [counts_table(steps)]
    lines += [f"notice: {name}: {notice}" for name, step in steps.items() if (notice := notice_of(step))]
    if not rows["kept"]:
        lines.append(f"notice: no row is left; {out / 'report.md'} says which steps dropped them")
    lines.append(f"wrote {out}: {rows['kept']:,} of {rows['read']:,} rows; licence: {manifest['licence']}")
    return "\n".join(lines)


def describe_files(task: Any, input_dir: Path) -> list[dict[str, Any]]:
    """Name, size, hash and lines of the task's training files; of every file of the folder where it names none."""
    if not input_dir.is_dir():
        raise UserError(f"{input_dir} is no folder; expected input_dir=<folder with the rows to curate>")
    names = getattr(task, "train_files", None)
    paths = matching(input_dir, names, "training file") if names else []
    paths = paths or sorted(path for path in input_dir.iterdir() if path.is_file() and not path.name.startswith("."))
    return [_describe_file(path, str(path.relative_to(input_dir))) for path in paths]


def _describe_file(path: Path, name: str) -> dict[str, Any]:
    digest, num_bytes, num_lines, last = hashlib.sha256(), 0, 0, b"\n"
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            num_bytes, num_lines, last = num_bytes + len(block), num_lines + block.count(b"\n"), block[-1:]
    num_lines += last != b"\n"
    return {"name": name, "num_bytes": num_bytes, "sha256": digest.hexdigest(), "num_lines": num_lines}


def find_licence(input_dir: Path) -> str:
    """The first line of a LICENSE in the folder, or the `license: ...` of a README; UNKNOWN without either."""
    files = [path for path in sorted(input_dir.iterdir()) if path.is_file() and path.suffix.lower() in TEXT_ENDINGS]
    for beginnings, pattern in ((("LICENSE", "LICENCE"), FIRST_LINE), (("README",), LICENCE_LINE)):
        for path in [path for path in files if path.name.upper().startswith(beginnings)]:
            if line := pattern.search(path.read_text(encoding="utf-8", errors="replace")):
                return f"{line.group(1)} ({path.name})"
    return UNKNOWN


def write_rows(examples: Iterable[Example], path: Path) -> None:
    with whole_file(path) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(dump_json(row_of(example)) + "\n" for example in examples)


def row_of(example: Example) -> dict[str, Any]:
    """`id`, `instruction`, `input`, `output`, or `id` and `turns`; then the further keys, which were read as text."""
    row: dict[str, Any] = {"id": example.id}
    if DIALOGUE in example.fields:
        texts = [*example.fields[DIALOGUE], *([] if example.answer is None else [example.answer])]
        row["turns"] = [{"speaker": ("user", "assistant")[n % 2], "utterance": text} for n, text in enumerate(texts)]
        for turn, is_learnt in zip(row["turns"][1::2], example.learns, strict=False):
            turn |= {} if is_learnt else {"weight": 0}
    else:
        row |= {name: "\n".join(example.fields.get(name, ())) for name in (INSTRUCTION, INPUT)}
        row["output"] = example.answer
        others = {name: "\n".join(value) for name, value in example.fields.items() if name not in row}
        row |= {name: text for name, text in others.items() if text}
    return row | {key: text for key, text in example.tags.items() if key not in row and key not in NOT_WRITTEN}


def page(manifest: Mapping[str, Any]) -> str:
    """The manifest as Markdown: counts and reasons of every step, with some of the dropped rows."""
    rows, steps = manifest["rows"], manifest["steps"]
    share = rows["kept"] / rows["read"] if rows["read"] else 0.0
    licence = plain(manifest["licence"])
    parts = [
        "# Curation",
        f"{rows['kept']:,} of {rows['read']:,} rows kept ({share:.1%}). Licence of the source: {licence}.",
        "\n".join(f"- {plain(remark)}" for remark in manifest["reading"]),
        counts_table(steps),
    ]
    parts += [_section(name, step) for name, step in steps.items()]
    return "\n\n".join(part for part in parts if part) + "\n"


def counts_table(steps: Mapping[str, Any]) -> str:
    rows = []
    for name, step in steps.items():
        num_rows, dropped = step["kept"] + step["dropped"], step["dropped"]
        share = f"{dropped / num_rows:.2%}" if num_rows else ""
        rows.append([name, f"{num_rows:,}", f"{dropped:,}", share, f"{step['changed']:,}", f"{step['kept']:,}"])
    return markdown(["step", "rows in", "dropped", "share", "changed", "kept"], rows)


def _section(name: str, step: Mapping[str, Any]) -> str:
    """The reasons and examples of one step; empty where it only kept rows."""
    notice, notes = notice_of(step), step.get("kept_with", {})
    if not (step["dropped"] or notes or notice):
        return ""
    lines = [f"## {name}", "", *([f"Notice: {plain(notice)}.", ""] if notice else [])]
    lines += [f"- {plain(reason)}: {count:,}" for reason, count in step["reasons"].items()]
    lines += [f"- kept, with {plain(note)}: {count:,}" for note, count in notes.items()]
    if step["examples"]:
        lines += ["", "| id | reason | row |", "|---|---|---|"]
        lines += [f"| {plain(row['id'])} | {plain(row['reason'])} | {plain(row['text'])} |" for row in step["examples"]]
    return "\n".join(lines).rstrip()


def notice_of(step: Mapping[str, Any]) -> str:
    """The notice that a step left for the reader, or ""."""
    return step.get("notes", {}).get("notice", "")
