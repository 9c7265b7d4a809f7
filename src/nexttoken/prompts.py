"""How an example becomes the conversation that stops where the answer begins."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from nexttoken.errors import UserError
from nexttoken.types import PASSAGES, Example, Message


@dataclass(frozen=True)
class Prompt:
    """Jinja templates over an example's fields, the cue after which the answer stands, and the labels that may follow.

    In a template every field is a tuple of turns; `zip` is at hand to walk several of them together, `labels` are the
    labels, `passages` what retrieval found. The text of the fields is never parsed as a template. With `chat`, messages
    go through the tokenizer's chat template and the cue opens the assistant's turn; without, their contents are joined
    as they are.
    """

    user: str
    answer_cue: str
    labels: Sequence[str]  # aligned with the task's classes
    options: str = ""  # the field of a question's options, one label each: none is ever dropped to save tokens
    system: str = ""
    chat: bool = False
    cut_at: float = 0.0  # where an over-long text loses its tokens: 0 its beginning, 1 its end, 0.7 around 70 %

    def __post_init__(self) -> None:
        texts = {"user": self.user, "system": self.system, "answer_cue": self.answer_cue}
        if wrong := [name for name, text in texts.items() if not isinstance(text, str)]:
            raise UserError(f"prompt.{wrong[0]}={texts[wrong[0]]!r} is not accepted: expected a text, in quotes")
        if isinstance(self.labels, str) or not all(isinstance(label, str) for label in self.labels):
            raise UserError(f"prompt.labels={self.labels!r} is not accepted: expected texts, such as ['1','2','3']")
        if not 0 <= self.cut_at <= 1:
            raise UserError(f"prompt.cut_at={self.cut_at} is not accepted: expected a number between 0 and 1")
        if len(set(self.labels)) < len(self.labels) or not all(self.labels):
            raise UserError(f"prompt.labels={list(self.labels)} must be different and not empty")
        for template in (self.system, self.user):
            _compile(template)

    def for_classes(self, classes: Sequence[str]) -> "Prompt":
        """This prompt with a label for each class: a prompt of options brings more labels than most questions need.

        Raises UserError when there are too few, or, without options, too many.
        """
        if len(self.labels) < len(classes) or (len(self.labels) > len(classes) and not self.options):
            raise UserError(f"prompt.labels={list(self.labels)} do not match the task's classes {list(classes)}")
        return replace(self, labels=tuple(self.labels[: len(classes)]))

    def render(self, example: Example) -> list[Message]:
        """Return the messages, the last one being the assistant's opening (the answer cue).

        Demonstrations come first, each as a user's turn and the assistant's, with its label behind the cue.
        Raises UserError when a template names a field that the example does not have.
        """
        messages = [Message("system", self._fill(self.system, example))] if self.system else []
        for shown in example.demonstrations:
            if shown.label is None:
                raise UserError(f"row {shown.id} has no label, so it demonstrates nothing; show solved rows only")
            messages.append(Message("user", self._fill(self.user, shown)))
            messages.append(Message("assistant", self.answer_cue + self.labels[shown.label]))
        return [*messages, Message("user", self._fill(self.user, example)), Message("assistant", self.answer_cue)]

    def _fill(self, template: str, example: Example) -> str:
        context = {PASSAGES: (), "labels": tuple(self.labels), **example.fields}
        try:
            return _compile(template).render(context)
        except Exception as error:  # a template can raise anything
            known = ", ".join(sorted(context))
            raise UserError(f"the prompt cannot be rendered: {error}; the example's fields are {known}") from None


@lru_cache
def _compile(template: str) -> Any:
    """Return the jinja2 template; it sees nothing but its context, and a name that is not there is an error."""
    from jinja2 import StrictUndefined, TemplateSyntaxError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["zip"] = zip
    try:
        return environment.from_string(template)
    except TemplateSyntaxError as error:
        raise UserError(f"the prompt's template is broken in its line {error.lineno}: {error.message}") from None
