"""The files of a curated set: train.jsonl, which the tasks read again, and report.md with every step's counts."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nexttoken.data.files import whole_file
from nexttoken.data.json_lines import dump_json
from nexttoken.types import DIALOGUE, INPUT, INSTRUCTION, Example

NOT_WRITTEN = frozenset({"file", DIALOGUE})  # tags that reading gives again
HEADER = "| step | rows in | dropped | share | changed | kept |\n|---|---:|---:|---:|---:|---:|"
ESCAPES = str.maketrans({"<": "&lt;", ">": "&gt;"} | {mark: f"\\{mark}" for mark in "\\|[]`*_"})


def write_rows(examples: Iterable[Example], path: Path) -> None:
    with whole_file(path) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(dump_json(row_of(example)) + "\n" for example in examples)


def row_of(example: Example) -> dict[str, Any]:
    """`id`, `instruction`, `input`, `output`, or `id` and `turns`; then the further keys, which were read as text."""
    row: dict[str, Any] = {"id": example.id}
    if DIALOGUE in example.fields:
        texts = [*example.fields[DIALOGUE], *([] if example.answer is None else [example.answer])]
        row["turns"] = [{"speaker": ("user", "assistant")[n % 2], "utterance": text} for n, text in enumerate(texts)]
    else:
        row |= {name: "\n".join(example.fields.get(name, ())) for name in (INSTRUCTION, INPUT)}
        row["output"] = example.answer
        others = {name: "\n".join(value) for name, value in example.fields.items() if name not in row}
        row |= {name: text for name, text in others.items() if text}
    return row | {key: text for key, text in example.tags.items() if key not in row and key not in NOT_WRITTEN}


def page(manifest: Mapping[str, Any]) -> str:
    """The manifest as Markdown: what every step kept and dropped and why, with some of the dropped rows."""
    rows, steps = manifest["rows"], manifest["steps"]
    share = rows["kept"] / rows["read"] if rows["read"] else 0.0
    parts = [
        "# Curation",
        f"{rows['kept']:,} of {rows['read']:,} rows kept ({share:.1%}). Licence of the source: {manifest['licence']}.",
        "\n".join(f"- {remark}" for remark in manifest["reading"]),
        "\n".join([HEADER, *(table_row(name, step) for name, step in steps.items())]),
        *(
            section(name, step)
            for name, step in steps.items()
            if step["dropped"] or step.get("kept_with") or notice_of(step)
        ),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def table_row(name: str, step: Mapping[str, Any]) -> str:
    given = step["kept"] + step["dropped"]
    share = f"{step['dropped'] / given:.2%}" if given else ""
    return f"| {name} | {given:,} | {step['dropped']:,} | {share} | {step['changed']:,} | {step['kept']:,} |"


def section(name: str, step: Mapping[str, Any]) -> str:
    lines = [f"## {name}", ""]
    if notice := notice_of(step):
        lines += [f"Notice: {notice}.", ""]
    lines += [f"- {cell(reason)}: {count:,}" for reason, count in step["reasons"].items()]
    lines += [f"- kept, with {cell(note)}: {count:,}" for note, count in step.get("kept_with", {}).items()]
    if step["examples"]:
        lines += ["", "| id | reason | row |", "|---|---|---|"]
        lines += [f"| {cell(row['id'])} | {cell(row['reason'])} | {cell(row['text'])} |" for row in step["examples"]]
    return "\n".join(lines).rstrip()


def notice_of(step: Mapping[str, Any]) -> str:
    """The notice that a step's run left for the reader, or ""."""
    return step.get("notes", {}).get("notice", "")


def cell(text: str) -> str:
    """Text of the data as plain text in a table, without columns, tags, links or code of its own."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text.translate(ESCAPES))
