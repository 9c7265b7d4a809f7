"""The growth benchmark: what its records say of several sizes, and what it refuses."""

import gc
import mmap
import time

import numpy as np
import pytest

from benchmarks.growth import Phase, Watched, examples, main, record
from nexttoken.errors import UserError


def test_a_record_sets_the_most_rows_beside_the_fewest():
    measured = {
        1000: [{"predict": Phase(1.0, 2.0, 10.0)}, {"predict": Phase(2.0, 4.0, 30.0)}],
        60000: [{"predict": Phase(60.0, 120.0, 20.0)}, {"predict": Phase(60.0, 120.0, 20.0)}],
    }
    made = record("predict", measured)
    assert made.ratio == pytest.approx(1000 / 750)
    assert (made.ratio_min, made.ratio_max, made.memory_ratio) == (1.0, 2.0, 1.0)
    assert made.facts["sizes"]["1000"] == {"rows_per_second": 750, "cpu_ms_per_row": 3.0, "extra_mb": 20.0}
    assert made.versions["tokenizers"]


def test_memory_is_seen_though_it_is_given_back():
    gc.collect()
    with Watched() as watched:
        # Pages of its own: an array may lie in memory that the allocator has kept since an earlier test.
        memory = mmap.mmap(-1, 64 * 2**20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        np.frombuffer(memory, dtype=np.uint8)[:] = 1
        time.sleep(0.3)
        memory.close()
    assert 50 < watched.phase.extra_mb < 100
    assert watched.phase.seconds > 0.3


def test_rows_are_pairs_with_ids_of_their_own():
    few = examples(500)
    assert len({one.id for one in few}) == 500
    assert few[0].fields.keys() == {"prompt", "response_a", "response_b"}


@pytest.mark.parametrize("rows", ["1000", "1000,1000", "10,1000"])
def test_one_size_or_too_small_a_one_is_refused(rows):
    with pytest.raises(UserError, match="rows"):
        main([f"rows={rows}"])
