"""Dialogues of user and assistant in turn: each turn of the assistant may be learnt, and the last is predicted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from nexttoken.data.row_faults import Place, RowFault, id_of
from nexttoken.errors import UserError
from nexttoken.tasks.instruction_formats.conversation import TURN_KEYS, Speakers, shown_keys, turns_of
from nexttoken.tasks.open_files import ID_KEYS, Entry, OpenFiles, Reader, tags_of
from nexttoken.tasks.row_keys import unseen_keys
from nexttoken.transforms.dialogue import PREFIX
from nexttoken.types import DIALOGUE, Example, Split


@dataclass(frozen=True)
class Dialogue(OpenFiles):
    """Dialogue files: rows with `turns` of speaker and utterance, or `messages` of role and content, and the like.

    An example's field `dialogue` begins and ends with the user; its `answer` is the assistant's last turn. A dialogue
    that the assistant opens loses that turn; one that the user ends loses it in training, and is asked for what comes
    next in the test. An answer of `weight: 0` (or `train: false`) is read and never learnt. A system message and a
    context open the user's first turn. What else a row holds (persona, mark, services) becomes its tags.
    """

    offers: ClassVar[frozenset[str]] = frozenset({"texts", "dialogues"})
    needs: ClassVar[frozenset[str]] = frozenset({"shown utterances"})

    user: Sequence[str] = Speakers.user  # names of the speakers
    assistant: Sequence[str] = Speakers.assistant

    kind: ClassVar[str] = "dialogue file"

    def __post_init__(self) -> None:
        super().__post_init__()
        if both := {*self._speakers.user} & {*self._speakers.assistant}:
            raise UserError(f"{', '.join(sorted(both))} is in task.user and task.assistant: expected it in one of them")

    def reader(self, path: Path, split: Split) -> Reader:
        return lambda row, place: [_entry(row, place, self._speakers, is_test=split == "test")]

    def group_text(self, example: Example) -> str:
        text = "\n".join((*example.fields[DIALOGUE], example.answer or ""))
        return text.removeprefix(example.tags.get(PREFIX, ""))  # folds are the same whatever the persona

    @property
    def _speakers(self) -> Speakers:
        return Speakers(
            *((names,) if isinstance(names, str) else tuple(names) for names in (self.user, self.assistant))
        )


def _entry(row: Mapping[str, Any], place: Place, speakers: Speakers, is_test: bool) -> Entry:
    own_keys = shown_keys(row).union(TURN_KEYS)
    original, turns = id_of(row, ID_KEYS, place), turns_of(row, speakers)
    texts, learns, remarks = turns.texts, turns.learns, turns.remarks
    if not is_test:
        texts, learns, further = _learnt(texts, learns)
        remarks = (*remarks, *further)
    if not texts:
        raise RowFault("fewer than 2 turns from the user's first on")
    asked, answer = (texts[:-1], texts[-1]) if len(texts) % 2 == 0 else (texts, None)
    tags = tags_of(row, own_keys, place) | {DIALOGUE: str(original)}
    example = Example(str(original), {DIALOGUE: asked}, tags=tags, answer=answer, learns=() if all(learns) else learns)
    return Entry(original, example, place, remarks, (*unseen_keys(row, own_keys), *turns.unseen))


def _learnt(texts: tuple[str, ...], learns: tuple[bool, ...]) -> tuple[tuple[str, ...], tuple[bool, ...], list[str]]:
    """Return the turns up to the last answer that is learnt, whether each answer is, and remarks."""
    remarks = []
    if len(texts) % 2 == 1:
        texts = texts[:-1]
        remarks.append("the user's last turn has no answer and is left out")
    if learns and not any(learns):
        raise RowFault("no answer to learn from: the weight of each is 0")
    if learns and not learns[-1]:
        learns = learns[: max(place for place, is_learnt in enumerate(learns, start=1) if is_learnt)]
        texts = texts[: 2 * len(learns)]
        remarks.append("turns after the last answer that is learnt are left out")
    return texts, learns, remarks
