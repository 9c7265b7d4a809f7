"""Shared prefixes of rows: found in any order, and used only where they save enough tokens."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nexttoken.engine.batches import shared_batches
from nexttoken.engine.forward.prefixes import (
    MIN_PREFIX_TOKENS,
    common_length,
    common_prefix,
    fewest_tokens,
    group_by_prefix,
    group_neighbours,
)

ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(1, 30)).map(
        lambda spec: np.array([7] * 40 * (spec[0] > 0) + [spec[0]] * 50 + [spec[1]] * 45 + [9] * spec[2], np.int32)
    ),
    min_size=1,
    max_size=25,
)


@given(ROWS)
def test_groups_hold_every_row_once_and_begin_alike(rows):
    groups = group_by_prefix(rows)
    assert sorted(row for group in groups for row in group.members) == list(range(len(rows)))
    for group in groups:
        first = rows[group.members[0]]
        assert all(common_length(first, rows[row]) >= group.shared for row in group.members)
        assert all(len(rows[row]) > group.shared for row in group.members), "each row keeps a token of its own"
        assert group.shared >= MIN_PREFIX_TOKENS or len(group.members) == 1
        assert group.cost == group.shared + sum(len(rows[row]) - group.shared for row in group.members)


@given(ROWS, st.integers(1, 800))
def test_batches_hold_every_row_once_and_keep_the_budget(rows, batch_tokens):
    batches = shared_batches(rows, batch_tokens)
    assert sorted(row for batch in batches for row in batch) == list(range(len(rows)))
    for batch in batches:
        tokens = sum(group.cost for group in fewest_tokens([rows[row] for row in batch]))
        assert tokens <= batch_tokens or len(batch) == 1


def test_a_lone_row_in_front_takes_nothing_from_the_groups_behind_it():
    """All begin with the same 40 tokens, groups with 900: the lone row must not part them at 40."""
    draw = np.random.default_rng(0)
    start, rows = draw.integers(1, 97, 40), []
    for number in (1, 8, 8, 8):
        text = np.append(start, draw.integers(1, 97, 860 if number > 1 else 1500))
        rows += [np.append(text, draw.integers(1, 97, 60)) for _ in range(number)]
    (batch,) = shared_batches(rows, 8192)
    assert sum(group.cost for group in fewest_tokens([rows[row] for row in batch])) == 1600 + 3 * (900 + 8 * 60)


@given(ROWS)
def test_no_parting_reads_fewer_tokens(rows):
    groups, planned = fewest_tokens(rows), group_neighbours(rows)
    assert [row for group in groups for row in group.members] == list(range(len(rows)))
    for group in groups:
        own = [rows[row] for row in group.members]
        assert all(common_length(own[0], row) >= group.shared < len(row) for row in own)
        assert group.num_tokens == sum(map(len, own))
    assert sum(group.cost for group in groups) <= sum(group.cost for group in planned)


def test_rows_that_begin_alike_are_neighbours_in_a_batch():
    one, other = np.full(50, 1), np.full(50, 2)
    rows = [np.append(start, [n] * 20) for n, start in enumerate([one, other] * 4)]
    assert {frozenset(batch) for batch in shared_batches(rows, 130)} == {
        frozenset({0, 2, 4, 6}),
        frozenset({1, 3, 5, 7}),
    }


def test_a_common_prefix_has_to_be_worth_a_call():
    def rows(shared: int, own: int, number: int = 8) -> list[np.ndarray]:
        return [np.array([1] * shared + [n + 2] * own) for n in range(number)]

    assert common_prefix(rows(100, 200)) == 100
    assert common_prefix(rows(100, 2000)) == 0, "a twentieth of the tokens"
    assert common_prefix(rows(MIN_PREFIX_TOKENS - 1, 10)) == 0
    assert common_prefix(rows(100, 0)) == 99, "equal rows keep their last token"
    assert common_prefix(rows(100, 50, number=1)) == 0
    assert common_prefix([*rows(100, 50), np.array([5, 6])]) == 0
