"""The usual shapes of an instruction row. A further one is a class, or an object of one, in a tuple FORMATS."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from nexttoken.data.row_faults import RowFault, optional_text, text_of
from nexttoken.tasks.format_lists import FileFormat
from nexttoken.tasks.instruction_formats.conversation import TURN_KEYS, Speakers, earlier_text, turns_of
from nexttoken.tasks.row_keys import contexts_of, unseen_keys

RUBRIC_KEYS = ("eval_aspect", "rubric")  # what a judge is to look at


@dataclass(frozen=True, slots=True)
class Solved:
    """An instruction, its input ("" without one), and the answer, None where it is unknown.

    `remarks` say what was changed in the row; `unseen` are keys inside it that the model does not see.
    """

    instruction: str
    input: str = ""
    output: str | None = None
    remarks: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()


def asked(row: Mapping[str, Any], instruction: str, given: str | None, output: str | None = None) -> Solved:
    """Return an instruction with what stands beside it: the system message and earlier turns before it, texts to answer
    from behind its input."""
    earlier, contexts = earlier_text(row), [text for texts in contexts_of(row).values() for text in texts]
    opened = f"{earlier}\n\n{instruction}" if earlier and instruction.strip() else instruction
    remarks = ("a system message or earlier turns open the instruction",) if earlier else ()
    return Solved(opened, "\n\n".join(filter(None, (given, *contexts))), output, remarks)


class InstructionFormat(FileFormat, ABC):
    """Turns a row into instructions, or raises RowFault."""

    known_by: tuple[frozenset[str], ...]  # a row with all keys of one of these sets is recognised

    @property
    @abstractmethod
    def own_keys(self) -> frozenset[str]:
        """The keys that the format reads; the others become tags."""

    @abstractmethod
    def solved(self, row: Mapping[str, Any]) -> list[Solved]:
        """Raises RowFault where the row does not hold such an instruction."""


@dataclass(frozen=True)
class Pair(InstructionFormat):
    """One instruction and one answer a row, each under its key; `input` is the key of the input, None without one."""

    name: str
    known_by: tuple[frozenset[str], ...]
    instruction: str
    output: str
    input: str | None = None
    position: int = 0

    @property
    def own_keys(self) -> frozenset[str]:
        return frozenset({self.instruction, self.output, *RUBRIC_KEYS, *([self.input] if self.input else [])})

    def solved(self, row: Mapping[str, Any]) -> list[Solved]:
        given = optional_text(row, self.input) if self.input else None
        return [asked(row, text_of(row, self.instruction), given, optional_text(row, self.output))]


class SelfInstruct(InstructionFormat):
    """`{"id", "instruction", "instances": [{"input", "output"}, ...]}`: each instance is a row of its own."""

    position = 1
    name = "self_instruct"
    known_by = (frozenset({"instruction", "instances"}),)
    own_keys = frozenset({"instruction", "instances", *RUBRIC_KEYS})

    def solved(self, row: Mapping[str, Any]) -> list[Solved]:
        instruction, instances = text_of(row, "instruction"), row.get("instances")
        if not isinstance(instances, list) or not instances or not all(isinstance(one, dict) for one in instances):
            raise RowFault("instances is not a list of at least one object")
        return [
            replace(
                asked(row, instruction, optional_text(one, "input"), optional_text(one, "output")),
                unseen=unseen_keys(one, ("input", "output"), "instances."),
            )
            for one in instances
        ]


class Conversation(InstructionFormat):
    """`{"conversations": [{"from", "value"}, ...]}` or `{"messages": [{"role", "content"}, ...]}`: the first round."""

    position = 4
    name = "conversation"
    known_by = tuple(frozenset({key}) for key in TURN_KEYS)
    own_keys = frozenset({*TURN_KEYS, *RUBRIC_KEYS})

    def solved(self, row: Mapping[str, Any]) -> list[Solved]:
        turns = turns_of(row, Speakers())
        texts = turns.texts
        further = ("only the first round is used; task=dialogue learns from all of them",) if len(texts) > 2 else ()
        output = texts[1] if turns.learns and turns.learns[0] else None  # an answer of weight 0 is none
        return [Solved(texts[0], output=output, remarks=(*turns.remarks, *further), unseen=turns.unseen)]


FORMATS = (
    SelfInstruct(),
    Pair("response", (frozenset({"instruction", "response"}),), "instruction", "response", "input", position=2),
    Pair("question", (frozenset({"question", "response"}),), "question", "response", position=3),
    Conversation(),
    Pair("plain", (frozenset({"instruction"}),), "instruction", "output", "input", position=5),
    Pair("elyza", (frozenset({"input"}),), "input", "output", position=6),  # its `input` is the instruction
)
