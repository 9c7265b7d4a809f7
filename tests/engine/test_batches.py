"""Batches partition the rows within the token budget; training steps are a pure function of seed and step."""

import time
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nexttoken.engine.batches import even_batches, packed_batches, token_batches
from nexttoken.engine.heads import LabelSoftmax
from nexttoken.engine.label_scores import UNKNOWN
from nexttoken.prompts.label_tokens import LabelTokens
from nexttoken.training.callbacks import ShowProgress
from nexttoken.training.steps import Batcher, Step, TrainSteps

LENGTHS = st.lists(st.integers(1, 50), max_size=40)
PROMPT_ONLY = LabelTokens(("A", "B"), ((1,), (2,)), (("A",), ("B",)), 0)
TWO_CONTEXTS = LabelTokens(("A", "B"), ((5, 6, 1), (7, 2)), (("A",), ("B",)), 0)


@dataclass(frozen=True)
class Row:
    id: str
    token_ids: np.ndarray
    label: int = 1
    num_options: int | None = None
    votes: tuple[float, ...] = ()
    round: int = 0
    num_targets: int = 1


def both_orders(num_ids: int) -> list[Row]:
    """Two rows an id and sometimes one, the second ones far behind the first."""
    firsts = [Row(f"id{n}", np.arange(3 + n % 5)) for n in range(num_ids)]
    return [*firsts, *(Row(row.id, np.arange(9)) for row in firsts if row.id != "id2")]


def make_steps(rows: list[Row], seed: int = 0, batch_size: int = 4, batch_tokens: int = 30, **ranks: int) -> TrainSteps:
    return TrainSteps(rows, batch_size, seed, Batcher(LabelSoftmax(), PROMPT_ONLY, batch_tokens, **ranks))


def micro_batches(step: Step) -> list[list[tuple[str, int]]]:
    """Per micro-batch, id and length of the rows that count."""
    return [
        [
            (id, length)
            for id, length, label in zip(b.ids, (len(row.token_ids) for row in b.rows), b.labels, strict=True)
            if label >= 0
        ]
        for b in step.batches
    ]


def rows_of(*steps: Step) -> list[tuple[str, int]]:
    return [row for step in steps for batch in micro_batches(step) for row in batch]


def test_rows_of_different_rounds_follow_each_other_one_an_epoch():
    rows = [Row(f"id{n}", np.arange(4 + number), round=number) for n in range(5) for number in range(3)]
    steps = make_steps([*rows, Row("alone", np.arange(3))])
    for lengths in (4, 5, 6, 4):
        assert sorted(rows_of(*steps)) == sorted([("alone", 3), *((f"id{n}", lengths) for n in range(5))])
    assert steps.num_rows(4 * len(steps)) == 4 * 6
    shown = ShowProgress(steps, 3 * len(steps), "train").progress.line(0)
    assert shown == "train, 6 rows an epoch: 0/18 rows, 0 rows/s, time left unknown"  # of 16 rows in 3 rounds


@given(LENGTHS, st.integers(1, 120))
def test_batches_partition_the_rows(lengths, batch_tokens):
    batches = token_batches(lengths, batch_tokens)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[index] for index in batch)
        assert len(batch) == 1 or len(batch) * longest <= batch_tokens
    flat = [lengths[index] for batch in batches for index in batch]
    assert flat == sorted(lengths, reverse=True), "like lengths together, the largest first"


@given(LENGTHS.filter(len), st.integers(1, 120), st.integers(2, 4))
def test_even_batches_end_together(lengths, batch_tokens, multiple):
    batches = even_batches(lengths, batch_tokens, multiple)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    sizes = [sum(lengths[index] for index in batch) for batch in batches]
    assert all(len(batch) == 1 or size <= batch_tokens for batch, size in zip(batches, sizes, strict=True))
    assert len(batches) % multiple == 0 or len(batches) == len(lengths)
    assert max(sizes) - min(sizes) <= max(lengths)


@given(LENGTHS.filter(len), st.integers(1, 120))
def test_batches_are_filled(lengths, batch_tokens):
    """No row could have joined the batch in front of it."""
    batches = token_batches(lengths, batch_tokens)
    for batch in batches[:-1]:
        assert (len(batch) + 1) * max(lengths[index] for index in batch) > batch_tokens


def test_rows_of_an_id_share_their_step():
    steps = make_steps(both_orders(10))
    assert len(steps) == 3
    taken = list(steps)
    assert len(taken) == 3
    by_step = [{row_id for row_id, _ in rows_of(step)} for step in taken]
    assert [len(ids) for ids in by_step] == [4, 4, 2]
    assert len(set().union(*by_step)) == 10


@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 3))
def test_every_row_once_an_epoch(num_ids, batch_size, seed):
    rows = both_orders(num_ids)
    steps = make_steps(rows, seed, batch_size)
    for _ in range(2):
        assert sorted(rows_of(*steps)) == sorted((row.id, len(row.token_ids)) for row in rows)


def test_micro_batches_keep_the_token_budget():
    for step in make_steps(both_orders(10), batch_tokens=20):
        assert all(batch.layout.token_ids.numel() <= 20 for batch in step.batches)
        assert len(step.batches) > 1


def test_the_budget_counts_every_context_and_its_tokens():
    batches = Batcher(LabelSoftmax(), TWO_CONTEXTS, 60).batches(both_orders(10))
    assert max(batch.layout.token_ids.numel() for batch in batches) <= 60
    assert Counter(id for batch in batches for id in batch.ids) == Counter(row.id for row in both_orders(10))


def test_order_is_a_function_of_seed_and_step():
    rows = both_orders(10)

    def epoch(steps: TrainSteps) -> list[list[list[tuple[str, int]]]]:
        return [micro_batches(step) for step in steps]

    steps, again = make_steps(rows), make_steps(rows)
    epochs = [epoch(steps), epoch(steps)]
    assert epochs == [epoch(again), epoch(again)]
    assert epochs[0] != epochs[1], "every epoch has its own order"
    assert epoch(make_steps(rows, seed=1)) != epochs[0]


@pytest.mark.parametrize("done", range(10))
def test_resuming_at_any_step_yields_what_is_left(done):
    rows = both_orders(10)
    whole = make_steps(rows)
    everything = [micro_batches(step) for _ in range(3) for step in whole]
    killed = make_steps(rows)
    endless = (step for _ in range(3) for step in killed)
    before = [micro_batches(next(endless)) for _ in range(done)]
    resumed = make_steps(rows)
    resumed.next_step = killed.next_step
    epochs_left = 3 - done // len(resumed)
    assert before + [micro_batches(step) for _ in range(epochs_left) for step in resumed] == everything


@given(st.integers(1, 12), st.integers(1, 5), st.integers(2, 4), st.integers(9, 60))
def test_ranks_share_the_rows_and_make_as_many_batches_each(num_ids, batch_size, num_ranks, batch_tokens):
    """No row lost or doubled; a rank without rows of its own still takes part, and learns nothing."""
    rows = both_orders(num_ids)
    alone = make_steps(rows, batch_size=batch_size, batch_tokens=batch_tokens)
    ranks = [
        list(make_steps(rows, 0, batch_size, batch_tokens, rank=rank, num_ranks=num_ranks)) for rank in range(num_ranks)
    ]
    for whole, *shares in zip(alone, *ranks, strict=True):
        assert sorted(rows_of(whole)) == sorted(row for share in shares for row in rows_of(share))
        assert len({len(share.batches) for share in shares}) == 1
        assert {share.num_rows for share in shares} == {whole.num_rows}


@pytest.mark.parametrize("packs", [True, False])
def test_halves_hold_the_same_rows_with_less_padding(packs):
    (batch,) = Batcher(LabelSoftmax(), TWO_CONTEXTS, 1000, packs=packs).batches(both_orders(5))
    first, second = batch.halves
    assert first.ids + second.ids == batch.ids
    assert first.labels.tolist() + second.labels.tolist() == batch.labels.tolist()
    assert {part.layout.segments is not None for part in (batch, first, second)} == {packs}
    if packs:
        assert torch.cat([first.layout.token_ids, second.layout.token_ids], dim=1).equal(batch.layout.token_ids)
    else:
        assert first.layout.num_padding + second.layout.num_padding < batch.layout.num_padding
    alone = Batcher(LabelSoftmax(), PROMPT_ONLY, 1000, packs=packs).batches(both_orders(1)[:1])[0]
    assert alone.halves == [alone]
    for half in batch.filler.halves:
        assert set(half.labels.tolist()) == {UNKNOWN}, "what counts for nothing does so in halves"


@given(st.lists(st.integers(1, 60), max_size=80), st.integers(1, 200))
def test_packed_batches_partition_the_rows_and_are_filled(lengths, batch_tokens):
    batches = packed_batches(lengths, batch_tokens)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    sizes = [sum(lengths[row] for row in batch) for batch in batches]
    assert all(size <= batch_tokens or len(batch) == 1 for size, batch in zip(sizes, batches, strict=True))
    assert sum(size <= batch_tokens // 2 for size in sizes) <= 1, "two half empty ones would be one"


def test_packing_is_quick_where_there_are_many_rows():
    sizes = np.random.default_rng(0).integers(20, 400, 30_000).tolist()
    start = time.process_time()
    batches = packed_batches(sizes, 512)
    assert time.process_time() - start < 10  # a search through all batches took a minute
    assert sum(sizes) / 512 <= len(batches) <= 1.05 * sum(sizes) / 512
