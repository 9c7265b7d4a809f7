"""The turns of a row that holds a conversation, as user and assistant in turn, the user first."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from nexttoken.data.row_faults import RowFault
from nexttoken.errors import first_five
from nexttoken.tasks.row_keys import ABSENT, HISTORY_KEY, SYSTEM_KEYS, content_text, contexts_of, system_of, unseen_keys

TURN_KEYS = ("turns", "messages", "conversations", "conversation")
SPEAKER_KEYS = ("speaker", "role", "from")
TEXT_KEYS = ("utterance", "content", "value", "text")
WEIGHT_KEYS = ("weight", "train", "loss")  # 0 or false: the turn is read, and never learnt
# Other names by which files say what is learnt: their values have other meanings.
OTHER_WEIGHTS = re.compile(
    r"weights?|train(ing|able|_\w+)?|loss(_?(weights?|mask))?|mask(ed)?|learn(s|t|ed|able)?", re.I
)

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
class Turn:
    """A speaker's turn; `learns` is None where the row does not say whether it is to be learnt."""

    role: Role
    text: str
    learns: bool | None = None
    unseen: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Turns:
    """The user's and the assistant's texts in turn, and remarks on what was changed in the row.

    `learns` is of each of the assistant's texts; `unseen` are keys of turns that the model does not see.
    """

    texts: tuple[str, ...]
    learns: tuple[bool, ...]
    remarks: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()


def shown_keys(row: Mapping[str, Any]) -> frozenset[str]:
    """Return the keys beside the turns, or beside an instruction, whose text the model sees."""
    return frozenset({*SYSTEM_KEYS, HISTORY_KEY, *contexts_of(row)})


def turns_of(row: Mapping[str, Any], speakers: Speakers) -> Turns:
    """Return the turns, of which there is at least the user's first; those of `history` come before.

    Turns of one speaker in a row are joined by a line break. A system message, which some models have no role for,
    opens the user's first turn, a blank line after it; so do texts to answer from. What the assistant says before the
    user is left out.

    Raises: RowFault for an empty or unspoken turn, an unknown speaker, a system message in the middle, a weight other
    than 0 or 1.
    """
    spoken: list[Turn] = []
    remarks: list[str] = []
    unseen: list[str] = []
    for turn in _spoken(row, speakers):
        unseen += turn.unseen
        if turn.learns and turn.role != "assistant":
            remarks.append("a turn that is to be learnt is not the assistant's, and is only read")
        if spoken and spoken[-1].role == turn.role:
            spoken[-1] = _joined(spoken[-1], turn)
            remarks.append("turns of one speaker in a row are joined")
        else:
            spoken.append(turn)
    system = spoken.pop(0).text if spoken[0].role == "system" else ""
    if any(turn.role == "system" for turn in spoken):
        raise RowFault('a system message after the first turn; task.assistant=[system] if "system" is the assistant')
    if spoken and spoken[0].role == "assistant":
        del spoken[0]
        remarks.append("the assistant spoke first, and that turn is left out")
    if not spoken:
        raise RowFault("the user says nothing")
    context = "\n\n".join(text for texts in contexts_of(row).values() for text in texts)
    texts = ["\n\n".join(filter(None, (system, context, spoken[0].text))), *(turn.text for turn in spoken[1:])]
    remarks += ["a system message opens the user's first turn"] * bool(system)
    remarks += ["a context opens the user's first turn"] * bool(context)
    learns = tuple(turn.learns is not False for turn in spoken if turn.role == "assistant")
    return Turns(tuple(texts), learns, tuple(dict.fromkeys(remarks)), tuple(dict.fromkeys(unseen)))


def earlier_text(row: Mapping[str, Any]) -> str:
    """Return the system message and the turns of `history` as one text, "" without any."""
    history = "\n".join(turn.text for turn in _history(row, Speakers()))
    return "\n\n".join(filter(None, (system_of(row), history)))


def _joined(first: Turn, second: Turn) -> Turn:
    if first.role == "assistant" and (first.learns is False) != (second.learns is False):
        raise RowFault("turns of the assistant in a row, of which one is to be learnt and one is not")
    return replace(first, text=f"{first.text}\n{second.text}")


def _spoken(row: Mapping[str, Any], speakers: Speakers) -> Iterator[Turn]:
    if system := system_of(row):
        yield Turn("system", system)
    yield from _history(row, speakers)
    key = _first_key(row, TURN_KEYS)
    if not isinstance(row[key], list) or not row[key]:
        raise RowFault(f"{key} is not a list of at least one turn")
    yield from (_turn(turn, f"turn {number}", key, speakers) for number, turn in enumerate(row[key], start=1))


def _history(row: Mapping[str, Any], speakers: Speakers) -> Iterator[Turn]:
    """Yield the turns of `history`: messages, or rounds of what the user and what the assistant said."""
    history = row.get(HISTORY_KEY) or []
    if not isinstance(history, list):
        raise RowFault(f"{HISTORY_KEY} is {type(history).__name__}, expected a list of rounds")
    for number, one in enumerate(history, start=1):
        if isinstance(one, dict):
            yield _turn(one, f"turn {number} of {HISTORY_KEY}", HISTORY_KEY, speakers)
        elif isinstance(one, list) and len(one) == 2 and all(isinstance(text, str) and text.strip() for text in one):
            yield from (Turn("user", one[0]), Turn("assistant", one[1]))
        else:
            raise RowFault(f"round {number} of {HISTORY_KEY} is not a question and its answer")


def _turn(turn: Any, name: str, key: str, speakers: Speakers) -> Turn:
    if not isinstance(turn, dict):
        raise RowFault(f"{name} is no object")
    speaker_key, text_key = (_first_key(turn, keys, f"{name} ") for keys in (SPEAKER_KEYS, TEXT_KEYS))
    text = content_text(turn[text_key], f"{text_key} of {name}")
    if not text.strip():
        raise RowFault(f"{name} is empty")
    unseen = unseen_keys(turn, {speaker_key, text_key, *WEIGHT_KEYS}, f"{key}.")
    return Turn(speakers.role(turn[speaker_key], speaker_key), text, _learns(turn, name), unseen)


def _learns(turn: Mapping[str, Any], name: str) -> bool | None:
    """Return whether the turn is to be learnt, None where it does not say.

    Raises: RowFault where it says so in other words.
    """
    parts = [part for key in TEXT_KEYS if isinstance(turn.get(key), list) for part in turn[key]]
    for one, known in ((turn, WEIGHT_KEYS), *((part, ()) for part in parts if isinstance(part, Mapping))):
        others = [key for key in one if OTHER_WEIGHTS.fullmatch(key) and key not in known and one[key] not in ABSENT]
        if others:
            raise RowFault(f"{others[0]} of {name} is not read; write weight 0 or 1 beside its text")
    given = {key: turn[key] for key in WEIGHT_KEYS if turn.get(key) is not None}
    for key, value in given.items():
        if not isinstance(value, bool | int | float) or value not in (0, 1):
            raise RowFault(f"{key} of {name} is {value!r:.40}, expected 0 or 1")
    if len(set(given.values())) > 1:
        raise RowFault(f"{' and '.join(given)} of {name} differ")
    return bool(next(iter(given.values()))) if given else None


def _first_key(row: Mapping[str, Any], keys: Sequence[str], name: str = "") -> str:
    if key := next((key for key in keys if key in row), None):
        return key
    raise RowFault(f"{name}lacks {' or '.join(keys)}")
