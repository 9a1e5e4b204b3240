"""The usual way to average gradients, for comparison: a running sum on each rank, then a ring all-reduce in f32.

This is what data-parallel training with gradient accumulation does over NCCL or Gloo. Which additions are
made, and in which order, depends on how many ranks there are: so do the bits of the result.
"""

from __future__ import annotations

from collections.abc import Callable

import isobit
import numpy as np
from data import Floats


def mean_of_leaves(comm: isobit.Communicator, num_leaves: int, leaf_value: Callable[[int], Floats]) -> Floats:
    """The mean over all leaves, each rank having summed a contiguous run of them."""
    first = comm.rank * num_leaves // comm.world_size
    behind = (comm.rank + 1) * num_leaves // comm.world_size
    total = leaf_value(first)
    for leaf in range(first + 1, behind):
        total += leaf_value(leaf)
    ring_all_reduce(comm, total)
    total /= np.float32(num_leaves)
    return total


def ring_all_reduce(comm: isobit.Communicator, values: Floats) -> None:
    """Sums `values` over the ranks, in place: once round the ring to add, once more to hand the sums on."""
    n, rank = comm.world_size, comm.rank
    chunks = np.array_split(values, n)
    for step in range(n - 1):
        received = _pass_on(comm, chunks[(rank - step) % n], like=chunks[(rank - step - 1) % n])
        chunks[(rank - step - 1) % n] += received
    for step in range(n - 1):
        received = _pass_on(comm, chunks[(rank + 1 - step) % n], like=chunks[(rank - step) % n])
        chunks[(rank - step) % n][:] = received


def _pass_on(comm: isobit.Communicator, chunk: Floats, like: Floats) -> Floats:
    """Sends `chunk` to the next rank and receives one like `like` from the one before."""
    following, before = (comm.rank + 1) % comm.world_size, (comm.rank - 1) % comm.world_size
    received = np.empty_like(like)
    comm.send(chunk, following)
    comm.recv(received, before)
    return received
