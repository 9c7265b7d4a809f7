"""The tokens that spell each label after a prompt, and their table."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

from nexttoken.errors import UserError

Encode = Callable[[str], list[int]]
Contexts = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class LabelTokens:
    """Token ids that spell each label where the answer begins.

    `num_rejoined` is the number of the prompt's last tokens that merge with the labels, for example a space at the end
    of the cue. They are removed from the prompt and become part of every continuation.
    """

    labels: tuple[str, ...]
    continuations: tuple[tuple[int, ...], ...]
    pieces: tuple[tuple[str, ...], ...]
    num_rejoined: int

    @property
    def one_token_each(self) -> bool:
        """True if one forward pass over the prompt scores all labels."""
        return all(len(ids) == 1 for ids in self.continuations)

    @property
    def longest(self) -> int:
        """Number of tokens of the longest label, to leave free in the token budget."""
        return max(map(len, self.continuations), default=0)

    @property
    def contexts(self) -> Contexts:
        """Token sequences to append to a prompt so that all labels can be scored.

        Only () for one-token labels, else each label without its last token, unless another context starts with it.
        """
        heads = {ids[:-1] for ids in self.continuations}
        return tuple(sorted(h for h in heads if not any(len(o) > len(h) and o[: len(h)] == h for o in heads)))

    def as_dict(self) -> dict:
        return asdict(self)

    def table(self) -> str:
        """Return the table that is printed at the start and saved with the run."""
        prefix = "yes" if self.num_rejoined == 0 else f"no, {self.num_rejoined} re-joined"
        rows = [("label", "token ids", "pieces", "prompt stays a prefix")]
        rows += [
            (repr(label), " ".join(map(str, ids)), " ".join(map(repr, pieces)), prefix)
            for label, ids, pieces in zip(self.labels, self.continuations, self.pieces, strict=True)
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def find_label_tokens(
    texts: Iterable[str],
    labels: Sequence[str],
    encode: Encode,
    to_pieces: Callable[[list[int]], list[str]],
    unk_id: int | None,
) -> LabelTokens:
    """Find the label tokens after real prompts; they must be the same for all of them.

    `encode` gives the ids of a whole text. Each label is encoded together with the prompt; the ids after the longest
    prefix that all of them share with the prompt are the label's continuation. Tokens that span the join are therefore
    right, and "A" after a newline is not confused with " A". Raises UserError for labels that are unknown to the
    tokenizer, equal, or different from row to row.
    """
    found: LabelTokens | None = None
    for text in texts:
        tokens = _after(text, labels, encode, to_pieces)
        if found is None:
            found = tokens
            _refuse_unreadable(found, unk_id)
        elif tokens != found:
            raise UserError(
                f"the labels' tokens depend on the row: {found.continuations} after one prompt, {tokens.continuations} "
                f"after ...{text[-40:]!r}; end prompt.answer_cue with a fixed line, such as '### Answer\\n'"
            )
    if found is None:
        raise UserError("no row to find the label tokens in: the task has no examples; check its files")
    return found


def _after(text: str, labels: Sequence[str], encode: Encode, to_pieces: Callable) -> LabelTokens:
    prompt_ids = encode(text)
    whole = [encode(text + label) for label in labels]
    keep = min(num_shared(prompt_ids, ids) for ids in whole)
    continuations = tuple(tuple(ids[keep:]) for ids in whole)
    pieces = tuple(tuple(to_pieces(list(ids))) for ids in continuations)
    return LabelTokens(tuple(labels), continuations, pieces, num_rejoined=len(prompt_ids) - keep)


def num_shared(left: Sequence[object], right: Sequence[object]) -> int:
    """Length of the common prefix."""
    return next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


def _refuse_unreadable(tokens: LabelTokens, unk_id: int | None) -> None:
    for label, ids in zip(tokens.labels, tokens.continuations, strict=True):
        if not ids or (unk_id is not None and unk_id in ids):
            raise UserError(f"label {label!r} is unknown to this tokenizer; use other prompt.labels\n{tokens.table()}")
    if len(set(tokens.continuations)) < len(tokens.continuations):
        raise UserError(f"two labels have the same tokens; choose prompt.labels that differ\n{tokens.table()}")
