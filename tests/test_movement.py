"""Collectives that move bytes: against what numpy says of the same data."""

from __future__ import annotations

import threading
from collections.abc import Callable

import isobit
import numpy as np
import pytest
from ranks import Group, results
from truth import DTYPES, Array, leaf


def move_everything(comm: isobit.Communicator, dtype: str, rows: int) -> None:
    n, rank = comm.world_size, comm.rank
    blocks = [leaf(r, dtype, (rows, 3), seed=3) for r in range(n)]
    mine, whole = blocks[rank].copy(), np.concatenate(blocks)

    assert comm.all_gather(mine).tobytes() == whole.tobytes()
    out = np.empty_like(whole)
    assert comm.all_gather(mine, out) is out
    assert out.tobytes() == whole.tobytes()
    for root in {0, n - 1}:
        gathered = comm.gather(mine, root=root)
        assert (gathered is None) == (rank != root)
        assert gathered is None or gathered.tobytes() == whole.tobytes()
        if rank == root:
            block = comm.scatter(whole.copy(), root=root)
        else:
            block = comm.scatter(out=np.empty_like(mine), root=root)
        assert block.tobytes() == mine.tobytes()
        buffer = mine.copy()
        assert comm.broadcast(buffer, root=root) is buffer
        assert buffer.tobytes() == blocks[root].tobytes()
    assert mine.tobytes() == blocks[rank].tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_blocks_arrive_whole_and_in_rank_order(group: Group, dtype: str) -> None:
    results(group, move_everything, dtype, 2)


def test_blocks_may_be_empty_or_large(group: Group) -> None:
    results(group, move_everything, "f32", 0)
    results(group, move_everything, "f64", 20_000)


def move_uneven(comm: isobit.Communicator) -> None:
    n, rank = comm.world_size, comm.rank
    counts = [(7 * r) % 5 for r in range(n)]
    blocks = [leaf(r, "i32", (counts[r], 2), seed=4) for r in range(n)]
    whole = np.concatenate(blocks)
    assert np.array_equal(comm.all_gather(blocks[rank], counts=counts), whole)
    gathered = comm.gather(blocks[rank], root=0, counts=counts)
    assert gathered is None or np.array_equal(gathered, whole)
    if rank == 0:
        block = comm.scatter(whole, counts=counts)
    else:
        block = comm.scatter(out=np.empty_like(blocks[rank]), counts=counts)
    assert np.array_equal(block, blocks[rank])


def test_counts_of_rows_may_differ_and_be_zero(group: Group) -> None:
    results(group, move_uneven)


def exchange(comm: isobit.Communicator) -> None:
    n, rank = comm.world_size, comm.rank
    matrix = np.arange(n * n * 2).reshape(n, n, 2)
    assert np.array_equal(comm.all_to_all(matrix[rank].copy()), matrix[:, rank])
    # Rank i sends i * j rows to rank j, each saying from where to where.
    sends = [rank * other for other in range(n)]
    rows = np.array([[rank, other] for other in range(n) for _ in range(sends[other])], np.int64).reshape(-1, 2)
    received = comm.all_to_all(rows, send_counts=sends, recv_counts=sends)
    wanted = np.array([[other, rank] for other in range(n) for _ in range(sends[other])], np.int64).reshape(-1, 2)
    assert np.array_equal(received, wanted)


def test_each_rank_gets_what_each_other_meant_for_it(group: Group) -> None:
    results(group, exchange)


def pass_round(comm: isobit.Communicator, elements: int) -> None:
    n, rank = comm.world_size, comm.rank
    if n == 1:
        return
    token = np.full(elements, -1, np.int64)
    if rank == 0:
        comm.send(np.arange(elements), 1, tag=9)
        comm.recv(token, n - 1, tag=9)
    else:
        comm.recv(token, rank - 1, tag=9)
        comm.send(token, (rank + 1) % n, tag=9)
    assert np.array_equal(token, np.arange(elements))


def test_a_token_goes_round(group: Group) -> None:
    for elements in (0, 1, 100_000):
        results(group, pass_round, elements)


def test_nobody_leaves_a_barrier_before_the_last_has_come() -> None:
    comms = isobit.memory_group(3, timeout=60)
    arrived: list[int] = []

    def meet(comm: isobit.Communicator) -> None:
        arrived.append(comm.rank)
        comm.barrier()
        assert sorted(arrived) == [0, 1, 2]

    failures: list[BaseException] = []

    def guarded(comm: isobit.Communicator) -> None:
        try:
            meet(comm)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(comm,)) for comm in comms]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failures == []


def strided(comm: isobit.Communicator) -> None:
    n, rank = comm.world_size, comm.rank
    base = np.arange(48.0).reshape(6, 8) + rank
    total: Array = np.arange(48.0).reshape(6, 8) * n + sum(range(n))
    views: list[Callable[[Array], Array]] = [
        lambda a: a[::2, ::3],
        lambda a: a.T,
        lambda a: a[::-1, ::-1],
        lambda a: a[:, 2:5],
    ]
    for view in views:
        tensor = base.copy()
        untouched = base.copy()
        view(untouched)[...] = 0
        comm.all_reduce(view(tensor))
        assert np.array_equal(view(tensor), view(total))
        view(tensor)[...] = 0
        assert np.array_equal(tensor, untouched)
        out = np.zeros((6, 8))
        comm.all_reduce(view(base), view(out))
        assert np.array_equal(view(out), view(total))
        comm.broadcast(view(out), root=n - 1)
        assert np.array_equal(comm.all_gather(view(base))[: len(view(base))], view(np.arange(48.0).reshape(6, 8)))
    misaligned = np.zeros(4 * 8 + 1, np.uint8)[1:].view(np.float64)
    misaligned[...] = rank
    assert np.array_equal(comm.all_reduce(misaligned), np.full(4, sum(range(n))))


def test_strided_and_misaligned_arrays_give_right_results(group: Group) -> None:
    results(group, strided)
