"""report.md: what every step kept and dropped, why, and some of the dropped rows to judge it by."""

from collections.abc import Mapping
from typing import Any

HEADER = "| step | rows in | dropped | share | changed | kept |\n|---|---:|---:|---:|---:|---:|"


def page(manifest: Mapping[str, Any]) -> str:
    """Markdown of a manifest."""
    rows = manifest["rows"]
    share = rows["kept"] / rows["read"] if rows["read"] else 0.0
    parts = [
        "# Curation",
        f"{rows['kept']:,} of {rows['read']:,} rows kept ({share:.1%}). Licence of the source: {manifest['licence']}.",
        "\n".join(f"- {remark}" for remark in manifest["reading"]),
        "\n".join([HEADER, *(summary(name, step) for name, step in manifest["steps"].items())]),
        *(
            section(name, step)
            for name, step in manifest["steps"].items()
            if step["dropped"] or step.get("kept_with") or notice_of(step)
        ),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def summary(name: str, step: Mapping[str, Any]) -> str:
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
    """What a reader should know of a step's run, or ""."""
    return step.get("notes", {}).get("notice", "")


def cell(text: str) -> str:
    """Text from the data as plain text in a table: no column, tag, link or code of its own."""
    for mark in "\\|<>[]`*_":
        text = text.replace(mark, f"\\{mark}" if mark not in "<>" else {"<": "&lt;", ">": "&gt;"}[mark])
    return "".join(character if character.isprintable() else "�" for character in text)
