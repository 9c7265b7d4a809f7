"""Instructions: rows of an instruction, its input and the wanted text, in any of the `instruction_formats`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from nexttoken.data.row_faults import Place, RowFault, id_of, optional_text
from nexttoken.tasks.instruction_formats import named, recognised
from nexttoken.tasks.instruction_formats.conversation import shown_keys
from nexttoken.tasks.instruction_formats.formats import RUBRIC_KEYS, InstructionFormat
from nexttoken.tasks.open_files import ID_KEYS, Entry, OpenFiles, Reader, tags_of
from nexttoken.tasks.row_keys import unseen_keys
from nexttoken.types import INPUT, INSTRUCTION, Example, Split

RUBRIC = "rubric"


@dataclass(frozen=True)
class Instruct(OpenFiles):
    """Instruction files, each in the format of this name, or ("auto") in the one that its first row is recognised by.

    An example's `fields` are `instruction`, `input` and `rubric` ("" where there is none), its `answer` the output. A
    system message and earlier turns open the instruction, a context ends the input. A
    row of several instances is several examples: the first has the row's id, the k-th `<id>-<k>`.
    """

    format: str = "auto"

    kind: ClassVar[str] = "instruction file"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.format != "auto":
            named(self.format)

    def reader(self, path: Path, split: Split) -> Reader:
        instruction_format = recognised(path) if self.format == "auto" else named(self.format)

        return lambda row, place: _entries(instruction_format, row, place, needs_answer=split == "train")

    def group_text(self, example: Example) -> str:
        return "\n".join((*example.fields[INSTRUCTION], *example.fields[INPUT]))


def _entries(
    instruction_format: InstructionFormat, row: Mapping[str, Any], place: Place, needs_answer: bool
) -> list[Entry]:
    own_keys = instruction_format.own_keys | shown_keys(row)
    original, tags, unseen = id_of(row, ID_KEYS, place), tags_of(row, own_keys, place), unseen_keys(row, own_keys)
    rubric = next((text for key in RUBRIC_KEYS if (text := optional_text(row, key))), "")
    entries = []
    for number, solved in enumerate(instruction_format.solved(row), start=1):
        if not solved.instruction.strip():
            raise RowFault("an empty instruction")
        answer = solved.output if solved.output and solved.output.strip() else None
        if needs_answer and answer is None:
            raise RowFault("no answer to learn from" if solved.output is None else "an empty answer")
        fields = {INSTRUCTION: (solved.instruction,), INPUT: (solved.input,), RUBRIC: (rubric,)}
        own = original if number == 1 else f"{original}-{number}"
        example = Example(str(own), fields, tags=tags, answer=answer)
        entries.append(Entry(own, example, place, solved.remarks, (*unseen, *solved.unseen)))
    return entries
