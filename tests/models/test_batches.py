"""Batches partition the rows within the token budget; training steps are a pure function of seed and step."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexttoken.models.batches import TrainSteps, token_batches

LENGTHS = st.lists(st.integers(1, 50), max_size=40)


@dataclass(frozen=True)
class Row:
    id: str
    order: int
    token_ids: range


def both_orders(num_ids: int) -> list[Row]:
    """Two rows an id and sometimes one, the second ones far behind the first."""
    firsts = [Row(f"id{n}", 0, range(3 + n % 5)) for n in range(num_ids)]
    return [*firsts, *(Row(row.id, 1, range(9)) for row in firsts if row.id != "id2")]


def make_steps(rows: list[Row], seed: int = 0, batch_size: int = 4, batch_tokens: int = 30) -> TrainSteps:
    return TrainSteps(rows, batch_size, batch_tokens, seed, tuple)


@given(LENGTHS, st.integers(1, 120))
def test_batches_partition_the_rows(lengths, batch_tokens):
    batches = token_batches(lengths, batch_tokens)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[index] for index in batch)
        assert len(batch) == 1 or len(batch) * longest <= batch_tokens
    flat = [lengths[index] for batch in batches for index in batch]
    assert flat == sorted(lengths, reverse=True), "like lengths together, the largest first"


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
    for step in taken[:2]:
        assert len({row.id for batch in step for row in batch}) == 4
    by_step = [{row.id for batch in step for row in batch} for step in taken]
    assert sum(map(len, by_step)) == len(set().union(*by_step)) == 10


@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 3))
def test_every_row_once_an_epoch(num_ids, batch_size, seed):
    rows = both_orders(num_ids)
    steps = make_steps(rows, seed, batch_size)
    for _ in range(2):
        seen = [row for step in steps for batch in step for row in batch]
        assert sorted(map(repr, seen)) == sorted(map(repr, rows))


def test_micro_batches_keep_the_token_budget():
    for step in make_steps(both_orders(10), batch_tokens=20):
        assert all(len(batch) * max(len(row.token_ids) for row in batch) <= 20 for batch in step)
        assert len(step) > 1


def test_order_is_a_function_of_seed_and_step():
    rows = both_orders(10)
    steps = make_steps(rows)
    epochs = [list(steps), list(steps)]
    again = make_steps(rows)
    assert epochs == [list(again), list(again)]
    assert epochs[0] != epochs[1], "every epoch has its own order"
    assert list(make_steps(rows, seed=1)) != epochs[0]


@pytest.mark.parametrize("done", range(10))
def test_resuming_at_any_step_yields_what_is_left(done):
    rows = both_orders(10)
    whole = make_steps(rows)
    everything = [step for _ in range(3) for step in whole]
    killed = make_steps(rows)
    endless = (step for _ in range(3) for step in killed)
    before = [next(endless) for _ in range(done)]
    resumed = make_steps(rows)
    resumed.next_step = killed.next_step
    epochs_left = 3 - done // len(resumed)
    assert before + [step for _ in range(epochs_left) for step in resumed] == everything
