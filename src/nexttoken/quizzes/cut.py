"""Which of a question's candidates are asked: all of them, or the right one among others drawn by its id alone."""

import random
from dataclasses import replace

from nexttoken.quizzes.question import Question, RowFault


def drawn(question: Question, num_options: int, seed: int) -> tuple[int, ...]:
    """Return the indices of the options to be asked, in the order to be asked.

    Options that fit stay as they are. Of more, the right one is kept; the others and the order of all follow from
    `seed` and the question's id, whatever the order of the rows. Raises RowFault where the right one is not known.
    """
    count = len(question.options)
    if count <= num_options:
        return tuple(range(count))
    if question.answer is None:
        raise RowFault(f"{count} options for num_options={num_options}, and the one to be kept is not known")
    numbers = random.Random(f"{seed}:{question.id}")  # text is hashed by SHA-512: the same on every machine
    kept = [question.answer, *numbers.sample([i for i in range(count) if i != question.answer], num_options - 1)]
    return tuple(numbers.sample(kept, num_options))


def choose(question: Question, indices: tuple[int, ...]) -> Question:
    """Return the question with only these options, in this order."""
    answer = None if question.answer is None else indices.index(question.answer)
    return replace(question, options=tuple(question.options[index] for index in indices), answer=answer)
