"""A call that can't be carried out says so at once: it does not wait for the other ranks first."""

from __future__ import annotations

import isobit
import numpy as np
import pytest


def test_a_strided_out_that_is_read_only_is_refused_without_waiting_for_anybody() -> None:
    # The other rank never calls, so that whoever waits for it gets a Timeout.
    first, _ = isobit.memory_group(2, timeout=5)
    locked = np.ones(8)
    locked.flags.writeable = False
    with pytest.raises(TypeError, match="read-only"):
        first.all_reduce(np.ones(4), locked[::2])
    with pytest.raises(TypeError, match="read-only"):
        first.all_reduce(locked[::2])
    with pytest.raises(TypeError, match="read-only"):
        first.broadcast(locked[::2])
    assert np.array_equal(locked, np.ones(8))


def test_counts_that_leave_rows_over_are_refused() -> None:
    comm = isobit.init()
    with pytest.raises(ValueError, match="sum to 3"):
        comm.reduce_scatter(np.ones(4), counts=[3])
