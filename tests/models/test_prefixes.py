"""What rows begin with alike is found in any order, and shared only where that pays."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nexttoken.models.batches import shared_batches
from nexttoken.models.prefixes import FEWEST, alike, common_length, common_prefix, neighbours_alike

ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(1, 30)).map(
        lambda spec: np.array([7] * 40 * (spec[0] > 0) + [spec[0]] * 50 + [spec[1]] * 45 + [9] * spec[2], np.int32)
    ),
    min_size=1,
    max_size=25,
)


@given(ROWS)
def test_groups_hold_every_row_once_and_begin_alike(rows):
    groups = alike(rows)
    assert sorted(row for group in groups for row in group.members) == list(range(len(rows)))
    for group in groups:
        first = rows[group.members[0]]
        assert all(common_length(first, rows[row]) >= group.shared for row in group.members)
        assert all(len(rows[row]) > group.shared for row in group.members), "each row keeps a token of its own"
        assert group.shared >= FEWEST or len(group.members) == 1
        assert group.cost == group.shared + sum(len(rows[row]) - group.shared for row in group.members)


@given(ROWS, st.integers(1, 800))
def test_batches_hold_every_row_once_and_keep_the_budget(rows, batch_tokens):
    batches = shared_batches(rows, batch_tokens)
    assert sorted(row for batch in batches for row in batch) == list(range(len(rows)))
    for batch in batches:
        tokens = sum(group.cost for group in neighbours_alike([rows[row] for row in batch], worth=0))
        assert tokens <= batch_tokens or len(batch) == 1


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
    assert common_prefix(rows(FEWEST - 1, 10)) == 0
    assert common_prefix(rows(100, 0)) == 99, "equal rows keep their last token"
    assert common_prefix(rows(100, 50, number=1)) == 0
    assert common_prefix([*rows(100, 50), np.array([5, 6])]) == 0
