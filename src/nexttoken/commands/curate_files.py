"""The files of a curation: the source with its hashes and licence, the cleaned train.jsonl, and report.md."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nexttoken.data.files import matching, whole_file
from nexttoken.data.json_lines import dump_json
from nexttoken.errors import UserError
from nexttoken.report.markdown import markdown, plain
from nexttoken.types import DIALOGUE, INPUT, INSTRUCTION, Example

TEXT_ENDINGS = ("", ".txt", ".md", ".rst")
BLOCK = 1 << 20  # bytes read at once
UNKNOWN = "unknown – state it with licence=..."
FIRST_LINE = re.compile(r"^\s*(\S.*?)\s*$", re.MULTILINE)
LICENCE_LINE = re.compile(r"^[\s#*_-]*licen[cs]e\**\s*[:：]\s*\**\s*(\S.*?)\s*$", re.IGNORECASE | re.MULTILINE)
NOT_WRITTEN = frozenset({"file", DIALOGUE})  # tags that reading adds again


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
