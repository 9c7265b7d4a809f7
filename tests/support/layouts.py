"""The tokens that a place of a layout sees, found by its pieces and their parents."""

from nexttoken.engine.forward.layout import Layout
from nexttoken.engine.forward.packed_attention import ROOT


def tokens_before(layout: Layout, place: int) -> list[int]:
    """The tokens that a place sees, itself among them."""
    piece = piece_of(layout, place)
    seen = layout.token_ids.flatten()[layout.starts[piece] : place + 1].tolist()
    while (piece := layout.parents[piece]) != ROOT:
        start = layout.starts[piece]
        seen = layout.token_ids.flatten()[start : start + layout.lengths[piece]].tolist() + seen
    return seen


def first_piece(layout: Layout, place: int) -> int:
    """The number of the piece that a place's row begins with."""
    piece = piece_of(layout, place)
    while layout.parents[piece] != ROOT:
        piece = layout.parents[piece]
    return piece


def piece_of(layout: Layout, place: int) -> int:
    return max(number for number, start in enumerate(layout.starts) if start <= place)
