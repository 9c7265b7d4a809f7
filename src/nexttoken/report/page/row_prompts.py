"""Prompts as the model reads them: the run's own template, tokenizer and token limit, with marks where text was cut.

They are made in a process of their own in which transformers leaves torch out.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context

from nexttoken.errors import UserError, one_line
from nexttoken.models.pretrained import load_pretrained_tokenizer
from nexttoken.prompts.encode_labels import Encoder
from nexttoken.prompts.prompt import Prompt
from nexttoken.prompts.render import Fitted, Renderer
from nexttoken.report.page.row_texts import shown_text
from nexttoken.runs.folder import FoldFolder
from nexttoken.runs.loaded import LoadedRun
from nexttoken.settings import ModelSettings
from nexttoken.types import PASSAGES, Example

TEXT, SPECIAL, CUT = 0, 1, 2  # kinds of pieces
RETRIEVES = "its prompts hold passages or demonstrations that are searched for; save_prompts=true writes prompts.jsonl"
BRANCHES = "this head reads each candidate apart behind the same prompt; save_prompts=true writes prompts.jsonl"
Piece = tuple[int, str]


@dataclass(frozen=True)
class ReadPrompt:
    """A prompt in pieces (kind, text), its number of tokens, and whether it was cut."""

    pieces: list[Piece]
    num_tokens: int
    was_cut: bool


@dataclass(frozen=True)
class _Job:
    """The prompts of one fold to make."""

    model: ModelSettings
    prompt: Prompt
    max_tokens: int
    examples: list[Example]


def read_prompts(run: LoadedRun, ids: set[str]) -> tuple[dict[str, ReadPrompt], str]:
    """The prompts of the held-out rows `ids`, by id, and why there are none ("" where there are)."""
    try:
        jobs = [_job(run, fold, ids) for fold in run.folds]
        with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_leave_torch_out) as pool:
            found = [*pool.map(_make, jobs)]
    except UserError as error:
        return {}, str(error)
    except BrokenProcessPool:
        return {}, "the process that makes them ended early; is there enough memory?"
    return {name: prompt for prompts in found for name, prompt in prompts.items()}, ""


def _leave_torch_out() -> None:
    os.environ |= {"USE_TORCH": "0", "HF_HUB_OFFLINE": "1"}  # read by transformers when it is imported


def _job(run: LoadedRun, fold: FoldFolder, ids: set[str]) -> _Job:
    settings, inference = run.parts.settings, run.parts.inference
    if inference.shows_pool or inference.state() or "Nothing" not in str(settings.search):
        raise UserError(RETRIEVES)
    if not run.parts.prompt.labels:
        raise UserError(BRANCHES)
    own = fold.path / "model"
    model = settings.model
    if own.is_dir():
        model = model.model_copy(update={"name_or_path": str(own), "revision": None})
    elif model.name_or_path is None:
        raise UserError(f"{own} with its tokenizer is not on this machine")
    examples = [one for one in run.held_out(fold) if one.id in ids]
    return _Job(model, run.parts.prompt, settings.max_tokens, inference.views(examples, ()))


def _make(job: _Job) -> dict[str, ReadPrompt]:
    try:
        encoder = Encoder(load_pretrained_tokenizer(job.model), job.prompt, job.max_tokens)
    except (OSError, UserError) as error:
        name = job.model.name_or_path
        raise UserError(f"the tokenizer of {name} is not on this machine: {one_line(error)}") from None
    fitted = encoder.fit_all(job.examples, [encoder.limit] * len(job.examples))
    return {
        example.id: ReadPrompt(pieces_of(one, example, encoder), len(one.ids), one.was_cut)
        for example, one in zip(job.examples, fitted, strict=True)
    }


def pieces_of(fitted: Fitted, whole: Example, renderer: Renderer) -> list[Piece]:
    """The prompt's text in pieces: plain text, control tokens, and a mark with the characters lost at each cut."""
    opening = renderer.tokenizer.convert_ids_to_tokens(renderer.opening)
    pieces = [] if fitted.text.startswith("".join(opening)) else [(SPECIAL, token) for token in opening]
    begin = 0
    for place, mark in [*sorted(_cuts(fitted, whole, renderer.prompt.cut_at)), (len(fitted.text), "")]:
        pieces += _special_apart(fitted.text[begin:place], renderer)
        pieces += [(CUT, mark)] if mark else []
        begin = place
    return pieces


def _special_apart(text: str, renderer: Renderer) -> Iterator[Piece]:
    begin = 0
    for found in renderer.disarm.special.finditer(text):
        yield TEXT, shown_text(text[begin : found.start()], None)
        yield SPECIAL, found.group()
        begin = found.end()
    yield TEXT, shown_text(text[begin:], None)


def _cuts(fitted: Fitted, whole: Example, cut_at: float) -> Iterator[tuple[int, str]]:
    """The places in the prompt's text where a field lost characters or turns, each with words for what was lost."""
    if not fitted.was_cut:
        return
    begin = 0
    for name, kept in fitted.example.fields.items():
        turns = whole.fields.get(name, ())
        if name == PASSAGES:
            continue
        if lost := len(turns) - len(kept):
            place = max(fitted.text.find(kept[0], begin), 0) if kept else 0
            yield place, f"{lost} earlier turns of {name} left out"
        for turn, rest in zip(turns[len(turns) - len(kept) :], kept, strict=True):
            place = fitted.text.find(rest, begin) if rest else -1
            if len(rest) < len(turn) and place >= 0:
                same = _cut_place(rest, turn, cut_at)
                yield place + same, f"{len(turn) - len(rest):,} characters of {name} cut"
            begin = max(begin, place + len(rest))
    if lost := len(whole.demonstrations) - len(fitted.example.demonstrations):
        yield 0, f"{lost} solved examples left out"


def _cut_place(rest: str, turn: str, cut_at: float) -> int:
    """The characters of `rest` in front of the cut; where several places give the same text, that nearest `cut_at`."""
    first, last = len(rest) - _num_same(rest[::-1], turn[::-1]), _num_same(rest, turn)
    return min(max(round(cut_at * len(rest)), first), last)


def _num_same(rest: str, turn: str) -> int:
    return next((place for place, letter in enumerate(rest) if letter != turn[place]), len(rest))
