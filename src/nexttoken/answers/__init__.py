"""The two kinds of answers, a closed set of labels and open texts: what each is scored by, kept as and handed in as."""

from nexttoken.answers.base import AnswerSet
from nexttoken.answers.labels import Labels
from nexttoken.answers.texts import Texts

__all__ = ["AnswerSet", "Labels", "Texts"]
