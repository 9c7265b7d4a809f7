"""Ask a run's held-out rows in another way than it was trained with, and show what that gains; nothing is trained.

python -m nexttoken ask run=output/lmsys/<name> inference=swap_averaged
python -m nexttoken ask run=output/lmsys/<name> inference=few_shot inference.num_demonstrations=2 max_tokens=1024
python -m nexttoken ask run=output/quiz/<name> inference=retrieval retriever=bm25 search.num_passages=5

Arguments:
  run=...          the run folder
  inference=...    any choice of train.py's, with its settings: inference.<key>=...
  correction=...   of zero-shot probabilities: none, batch, content_free, fitted or option_prior
  max_tokens=...   prompt + answer
  retriever=...    another retriever, with its settings; search.num_passages=... and search.per_option=...
  again=true       ask again in a way that was asked before, as after a change of the corpus
  batch_tokens=... tokens per forward pass (default: as in training)
  devices=...      processes, one per GPU
  base=...         folder or hub name of the base model on this machine
  input_dir=...    folder of the run's data on this machine
  within=8h30m     time of the command: it stops then, with status 3, and the same command goes on
  trust_remote_code=true   run the code that comes with the model

Each fold answers the rows that were held out of its training. The answers and scores are saved beside the run's own, in
<run>/asked/<way>/, a folder that every command takes as a run. predict.py with the same settings names this score.
A stopped command goes on where it stopped.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from nexttoken.commands.arguments import Arguments, RunPath
from nexttoken.commands.entry import compose
from nexttoken.commands.terminal import stop
from nexttoken.data.typed_texts import typed_override
from nexttoken.errors import UserError
from nexttoken.progress import UNANSWERED, Deadline, TimeIsUp, time_limit

STOP_SECONDS = 2.0  # before the end of the time
# Settings of predict.py alone.
UNUSED = ("name", "submissions_dir", "output_dir", "fold", "generation", "engine", "cascade", "cascade_share")


class AskArguments(Arguments):
    run: RunPath
    again: bool = False
    overrides: tuple[str, ...] = ()


def main(arguments: Sequence[str]) -> None:
    given = AskArguments.parse(arguments)
    keys = [override.lstrip("+~").partition("=")[0] for override in given.overrides]
    if unused := [key for key in keys if key.partition(".")[0] in UNUSED]:
        raise UserError(f"{unused[0]}=... is for predict.py, and ask answers held-out rows; leave it out")
    cfg = compose("predict", [typed_override("run", str(given.run)), *given.overrides])
    print(ask(cfg, given.again))


def ask(cfg: Any, again: bool = False) -> str:
    """Ask the held-out rows of a run in the way that `cfg` says, unless that was done before; return the table.

    Raises UserError for open answers, a final model, and thresholds that were chosen on these rows.
    """
    from nexttoken.models.processes import is_first, launch
    from nexttoken.pipeline import load_asked
    from nexttoken.runs.asked import ask_held_out, refuse_unscored, unasked
    from nexttoken.runs.asking import Asking
    from nexttoken.runs.read import read_run

    run, settings = load_asked(cfg)
    asking = Asking.of(run)
    refuse_unscored(asking, again)
    launch(settings.devices)
    numbers = unasked(asking, again)
    with stopping_after(settings.within):
        for number in numbers:
            ask_held_out(asking, number)
    if not is_first():
        return ""
    from nexttoken.report.asked import asked_table

    if asking.way and not numbers:
        print("this way was asked before; again=true asks anew")
    return asked_table(read_run(run.path), read_run(asking.folder.path), asking.way)


@contextmanager
def stopping_after(seconds: float | None) -> Iterator[None]:
    """A context that ends with status 3 when the time of the command is over; None: it is not limited."""
    if seconds is None:
        yield
        return
    try:
        with time_limit(Deadline(seconds).left - STOP_SECONDS):
            yield
    except TimeIsUp:
        stop("within: the time is up before all rows were asked; the same command goes on with the others", UNANSWERED)
