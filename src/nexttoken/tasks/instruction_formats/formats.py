"""The usual shapes of an instruction row. A further one is a line, or a class, and its place among `FORMATS`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from nexttoken.data.json_lines import RowFault, text_of
from nexttoken.tasks.instruction_formats.conversation import TURN_KEYS, Speakers, turns_of
from nexttoken.tasks.instruction_formats.entry import optional_text

RUBRIC_KEYS = ("eval_aspect", "rubric")  # what a judge is to look at


@dataclass(frozen=True, slots=True)
class Solved:
    """An instruction, what it is about ("": it says everything itself), and the answer, None where it is unknown.

    `remarks` say what had to be done to the row for it to be so.
    """

    instruction: str
    input: str = ""
    output: str | None = None
    remarks: tuple[str, ...] = ()


class InstructionFormat(Protocol):
    """Turns a row into instructions, or says why it is none."""

    @property
    def name(self) -> str: ...

    @property
    def known_by(self) -> tuple[frozenset[str], ...]: ...  # a row with all keys of one of these sets is recognised

    @property
    def own_keys(self) -> frozenset[str]: ...  # the others become tags

    def solved(self, row: Mapping[str, Any]) -> list[Solved]: ...  # raises RowFault


@dataclass(frozen=True)
class Pair:
    """One instruction and one answer a row, each under its key."""

    name: str
    known_by: tuple[frozenset[str], ...]
    instruction: str
    output: str
    input: str | None = None  # the key of the input; None: the instruction says everything itself

    @property
    def own_keys(self) -> frozenset[str]:
        return frozenset({self.instruction, self.output, *RUBRIC_KEYS, *([self.input] if self.input else [])})

    def solved(self, row: Mapping[str, Any]) -> list[Solved]:
        given = optional_text(row, self.input) if self.input else None
        return [Solved(text_of(row, self.instruction), given or "", optional_text(row, self.output))]


@dataclass(frozen=True)
class SelfInstruct:
    """`{"id", "instruction", "instances": [{"input", "output"}, ...]}`: each instance is a row of its own."""

    name: str = "self_instruct"
    known_by: tuple[frozenset[str], ...] = (frozenset({"instruction", "instances"}),)
    own_keys: frozenset[str] = frozenset({"instruction", "instances", *RUBRIC_KEYS})

    def solved(self, row: Mapping[str, Any]) -> list[Solved]:
        instruction, instances = text_of(row, "instruction"), row.get("instances")
        if not isinstance(instances, list) or not instances or not all(isinstance(one, dict) for one in instances):
            raise RowFault("instances is not a list of at least one object")
        return [
            Solved(instruction, optional_text(one, "input") or "", optional_text(one, "output")) for one in instances
        ]


@dataclass(frozen=True)
class Conversation:
    """`{"conversations": [{"from", "value"}, ...]}` or `{"messages": [{"role", "content"}, ...]}`: the first round."""

    name: str = "conversation"
    known_by: tuple[frozenset[str], ...] = tuple(frozenset({key}) for key in TURN_KEYS)
    own_keys: frozenset[str] = frozenset({*TURN_KEYS, *RUBRIC_KEYS})

    def solved(self, row: Mapping[str, Any]) -> list[Solved]:
        turns = turns_of(row, Speakers())
        texts = turns.texts
        further = ("only the first round is used; task=dialogue learns from all of them",) if len(texts) > 2 else ()
        return [Solved(texts[0], output=texts[1] if len(texts) > 1 else None, remarks=(*turns.remarks, *further))]


# In the order in which they are tried on a row: the more particular first.
FORMATS: tuple[InstructionFormat, ...] = (
    SelfInstruct(),
    Pair("response", (frozenset({"instruction", "response"}),), "instruction", "response", "input"),
    Pair("question", (frozenset({"question", "response"}),), "question", "response"),
    Conversation(),
    Pair("plain", (frozenset({"instruction"}),), "instruction", "output", "input"),  # Alpaca's, with an id or without
    Pair("elyza", (frozenset({"input"}),), "input", "output"),  # its `input` is the instruction
)
