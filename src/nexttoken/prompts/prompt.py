"""The prompt: templates that turn an example into a conversation that stops where the answer begins."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from string import ascii_letters
from typing import Any

from jinja2 import StrictUndefined, meta

from nexttoken.errors import UserError
from nexttoken.prompts.sandbox import LimitError, SafeTemplate, Sandbox, compile_template
from nexttoken.types import CONTEXT, OPTIONS, PASSAGES, Example, Message

LABELS = {  # ways to label any number of classes, by what they make of the classes' names
    "names": lambda names: names,
    "letters": lambda names: ascii_letters[26 : 26 + len(names)] + ascii_letters[: max(0, len(names) - 26)],
    "digits": lambda names: [str(place) for place in range(len(names))],
}
NO_TEXTS = (PASSAGES, OPTIONS)  # fields with places of their own in a template; so has CONTEXT beside passages


@dataclass(frozen=True)
class Prompt:
    """Jinja templates over an example's fields, the cue before the answer, and the labels that may follow it.

    Templates can use every field, as a tuple of turns, `fields` (the text of each by its name), `labels`, `choices`
    (each label with its option or class, where that is another text), `passages` (the row's own context, then
    retrieved texts), `turn` (the current utterance of a dialogue) and the function `zip`. Text of the fields is never
    parsed as a template. With `chat`, messages are formatted by a chat template (`chat_template`, or the tokenizer's)
    and the cue opens the assistant's turn. Without it, their contents are joined.
    """

    user: str
    answer_cue: str
    labels: Sequence[str] | str = ()  # in the order of the classes, or one of LABELS; none for open answers
    classes: Sequence[str] = ()  # names of the task's classes
    options: str = ""  # field of a question's options, one per label; they are never dropped
    dialogue: str = ""  # field of utterances, user and assistant in turn; each becomes a message
    system: str = ""
    chat: bool = False
    chat_template: str = ""  # gemma, chatml, llama3 or alpaca, for a tokenizer without one
    cut_at: float = 0.0  # place where a long text is cut: 0 its beginning, 1 its end, 0.7 around 70 %
    cut_sentences: bool = False  # cut whole sentences if possible

    def __post_init__(self) -> None:
        texts = {"user": self.user, "system": self.system, "answer_cue": self.answer_cue}
        if wrong := [name for name, text in texts.items() if not isinstance(text, str)]:
            raise UserError(f"prompt.{wrong[0]}={texts[wrong[0]]!r} is not accepted: expected a text, in quotes")
        named = isinstance(self.labels, str)
        is_list = isinstance(self.labels, list | tuple) and all(isinstance(label, str) for label in self.labels)
        if not (self.labels in LABELS if named else is_list):
            expected = f"texts, such as ['1','2','3'], or one of {', '.join(LABELS)}"
            raise UserError(f"prompt.labels={self.labels!r} is not accepted: expected {expected}")
        if not 0 <= self.cut_at <= 1:
            raise UserError(f"prompt.cut_at={self.cut_at} is not accepted: expected a number between 0 and 1")
        if not named and (len(set(self.labels)) < len(self.labels) or not all(self.labels)):
            raise UserError(f"prompt.labels={list(self.labels)} must be different and not empty")
        for template in (self.system, self.user):
            _compile(template)

    @property
    def needs(self) -> frozenset[str]:
        shown = {"options": self.options, "dialogues": self.dialogue}
        return frozenset({"labels" if self.labels else "texts"} | {name for name, field in shown.items() if field})

    @property
    def offers(self) -> frozenset[str]:
        shown = {"shown options": self.options, "shown utterances": self.dialogue}
        return frozenset(name for name, field in shown.items() if field)

    def for_classes(self, classes: Sequence[str], names: Sequence[str] | None = None) -> "Prompt":
        """Return this prompt with one label per class; a prompt with `options` may have more labels than classes.

        `names` are shown for the classes. Raises UserError for too few labels and, without `options`, for too many.
        """
        names = tuple(classes if names is None else names)
        if isinstance(self.labels, str):
            if self.labels == "letters" and len(names) > len(ascii_letters):
                what = f"prompt.labels=letters has {len(ascii_letters)} letters for {len(names)} classes"
                raise UserError(f"{what}; use prompt.labels=names, prompt.labels=digits or head=candidates")
            return replace(self, labels=tuple(LABELS[self.labels](names)), classes=names)
        if self.labels and not classes:
            raise UserError("the task has open answers, but this prompt has labels; use prompt=instruct or dialogue")
        if len(self.labels) < len(classes) or (len(self.labels) > len(classes) and not self.options):
            raise UserError(
                f"prompt.labels={list(self.labels)} do not match the task's classes {list(classes)}; use as many, or"
                " prompt.labels=letters, prompt.labels=digits or head=candidates"
            )
        return replace(self, labels=tuple(self.labels[: len(classes)]), classes=names)

    def has_labels_for(self, number: int) -> bool:
        """Return whether there is a label for each of so many classes; of letters there are 52."""
        return self.labels != "letters" or number <= len(ascii_letters)

    def for_places(self, number: int) -> "Prompt":
        """Return this prompt with a label for each place in a list of up to `number` options.

        Raises UserError for a prompt that does not list options.
        """
        if isinstance(self.labels, str) and self.labels != "names":
            places = min(number, len(ascii_letters)) if self.labels == "letters" else number
            return replace(self, labels=tuple(LABELS[self.labels](range(places))), options=OPTIONS)
        if not self.options:
            raise UserError(
                "a row has its own candidates among the classes, and this prompt does not list them; use"
                " head=candidates, prompt.labels=letters, or a prompt with options such as prompt=quiz_letters"
            )
        return replace(self, labels=tuple(self.labels[:number]))

    def render(self, example: Example) -> list[Message]:
        """Return the messages; the last one opens the assistant's turn with the answer cue.

        Demonstrations come first, each as a user's turn and an assistant's turn of the cue and the answer.
        Raises UserError if a template names a field that the example does not have.
        """
        messages = [Message("system", self._fill(self.system, example))] if self.system else []
        for shown in example.demonstrations:
            messages += [*self._messages(shown)[:-1], Message("assistant", self.answer_cue + self._answer(shown))]
        return [*messages, *self._messages(example)]

    def _messages(self, example: Example) -> list[Message]:
        """Messages without demonstrations: the utterances of a dialogue or one question, then the answer cue."""
        cue = Message("assistant", self.answer_cue)
        if not self.dialogue:
            return [Message("user", self._fill(self.user, example)), cue]
        messages = []
        for place, turn in enumerate(example.fields[self.dialogue]):
            is_user = place % 2 == 0
            content = self._fill(self.user, example, turn) if is_user else self.answer_cue + turn
            messages.append(Message("user" if is_user else "assistant", content))
        return [*messages, cue]

    def _answer(self, shown: Example) -> str:
        answer = shown.answer
        if shown.label is not None:
            answer = (self.labels or shown.fields[OPTIONS])[shown.label]
        if answer is None:
            raise UserError(f"row {shown.id} has no answer and cannot be a demonstration; use rows with answers only")
        return answer

    def shown(self, fields: Iterable[str]) -> frozenset[str]:
        """Those of an example's fields that the templates use; only these are cut."""
        names = _names(self.system) | _names(self.user) | {self.dialogue}
        names = names | {CONTEXT} if PASSAGES in names else names
        return frozenset(fields) if "fields" in names else names & frozenset(fields)

    def count_unshown(self, examples: Sequence[Example]) -> Counter[str]:
        """Return the number of examples by the field that has a text and is in no template; rubrics are a judge's."""
        every = {name for example in examples for name in example.fields}
        unshown = every - self.shown(every) - (set() if self.labels else {"rubric"})
        return Counter(
            name for e in examples for name, turns in e.fields.items() if name in unshown and any(map(str.strip, turns))
        )

    def continuations(self, example: Example) -> Sequence[str]:
        """Texts that may follow the cue: all labels, or the right answer."""
        return self.labels or [self._answer(example)]

    def _fill(self, template: str, example: Example, turn: str = "") -> str:
        num_characters = sum(len(text) for turns in example.fields.values() for text in turns) + len(turn)
        apart = {*NO_TEXTS} | ({CONTEXT} if PASSAGES in _names(template) else set())
        texts = {name: "\n".join(turns) for name, turns in example.fields.items() if name not in apart}
        names = example.fields.get(self.options, self.classes)
        choices = [] if names == self.labels else [*zip(self.labels, names, strict=False)]
        own = {"labels": tuple(self.labels), "choices": choices, "fields": texts, "turn": turn}
        context: dict[str, Any] = {**example.fields, **own}
        context[PASSAGES] = (*example.fields.get(CONTEXT, ()), *example.fields.get(PASSAGES, ()))
        try:
            return _compile(template).render(context, num_characters)
        except LimitError as error:
            raise UserError(f"the prompt's template {error}; shorten its loops") from None
        except Exception as error:  # a template can raise anything
            known = ", ".join(sorted(context))
            raise UserError(f"the prompt cannot be rendered: {error}; a template can use {known}") from None


@lru_cache
def _names(template: str) -> frozenset[str]:
    return frozenset(meta.find_undeclared_variables(_compile(template).compiled.environment.parse(template)))


@lru_cache
def _compile(template: str) -> SafeTemplate:
    """Return the sandboxed template; it sees only its context, and an unknown name is an error."""
    environment = Sandbox(undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals["zip"] = zip
    return compile_template("the prompt's template", template, environment)
