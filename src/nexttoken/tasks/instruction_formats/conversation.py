"""The turns of a row that holds a conversation, as user and assistant in turn, the user first."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nexttoken.data.row_faults import RowFault
from nexttoken.errors import first_five

TURN_KEYS = ("turns", "messages", "conversations", "conversation")
SPEAKER_KEYS = ("speaker", "role", "from")
TEXT_KEYS = ("utterance", "content", "value", "text")

Role = Literal["user", "assistant", "system"]


@dataclass(frozen=True)
class Speakers:
    """The names that a file has for the user and for the assistant, upper and lower case alike.

    Any other "system" is the assistant where turns have a `speaker`, as task-oriented corpora write it; where they have
    a `role`, it is the message that chat models are instructed by.
    """

    user: Sequence[str] = ("user", "human")
    assistant: Sequence[str] = ("assistant", "gpt", "model", "bot")

    def role(self, name: object, key: str) -> Role:
        folded = str(name).lower()
        if folded in map(str.lower, self.user):
            return "user"
        if folded in map(str.lower, self.assistant) or (folded == "system" and key == "speaker"):
            return "assistant"
        if folded == "system":
            return "system"
        raise RowFault(
            f"unknown speaker {str(name)[:40]!r}, expected one of {first_five([*self.user, *self.assistant])}"
        )


@dataclass(frozen=True, slots=True)
class Turns:
    """The user's and the assistant's texts in turn, and remarks on what was changed in the row."""

    texts: tuple[str, ...]
    remarks: tuple[str, ...] = ()


def turns_of(row: Mapping[str, Any], speakers: Speakers) -> Turns:
    """Return the turns, of which there is at least the user's first.

    Turns of one speaker in a row are joined by a line break. A system message, which some models have no role for,
    opens the user's first turn, a blank line after it. What the assistant says before the user is left out.

    Raises: RowFault for an empty or unspoken turn, an unknown speaker, a system message in the middle.
    """
    spoken: list[tuple[Role, str]] = []
    remarks = []
    for role, text in _spoken(row, speakers):
        if spoken and spoken[-1][0] == role:
            spoken[-1] = (role, f"{spoken[-1][1]}\n{text}")
            remarks.append("turns of one speaker in a row are joined")
        else:
            spoken.append((role, text))
    system = spoken.pop(0)[1] if spoken[0][0] == "system" else ""
    if any(role == "system" for role, _ in spoken):
        raise RowFault('a system message after the first turn; task.assistant=[system] if "system" is the assistant')
    if spoken and spoken[0][0] == "assistant":
        del spoken[0]
        remarks.append("the assistant spoke first, and that turn is left out")
    if not spoken:
        raise RowFault("the user says nothing")
    texts = [text for _, text in spoken]
    if system:
        texts[0] = f"{system}\n\n{texts[0]}"
        remarks.append("a system message opens the user's first turn")
    return Turns(tuple(texts), tuple(dict.fromkeys(remarks)))


def _spoken(row: Mapping[str, Any], speakers: Speakers) -> Iterator[tuple[Role, str]]:
    key = _first_key(row, TURN_KEYS)
    if not isinstance(row[key], list) or not row[key]:
        raise RowFault(f"{key} is not a list of at least one turn")
    for number, turn in enumerate(row[key], start=1):
        if not isinstance(turn, dict):
            raise RowFault(f"turn {number} is no object")
        speaker_key, text_key = (_first_key(turn, keys, f"turn {number} ") for keys in (SPEAKER_KEYS, TEXT_KEYS))
        text = turn[text_key]
        if not isinstance(text, str):
            raise RowFault(f"{text_key} of turn {number} is {type(text).__name__}, expected text")
        if not text.strip():
            raise RowFault(f"turn {number} is empty")
        yield speakers.role(turn[speaker_key], speaker_key), text


def _first_key(row: Mapping[str, Any], keys: Sequence[str], name: str = "") -> str:
    if key := next((key for key in keys if key in row), None):
        return key
    raise RowFault(f"{name}lacks {' or '.join(keys)}")
