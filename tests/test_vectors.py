"""The `_v` forms: blocks of any sizes, none at all among them, against what numpy says of the same data."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import isobit
import numpy as np
import pytest
from ranks import Group, Processes, results
from truth import Array, leaf

#: The rows of rank `r` of `n`: some have none, one has all, one has far more than the others.
UNEVEN: dict[str, Callable[[int, int], int]] = {
    "some have none": lambda r, n: (7 * r) % 5 if r % 2 else 0,
    "the last has all": lambda r, n: 9 if r == n - 1 else 0,
    "the first has far more": lambda r, n: 60_000 if r == 0 else r,
    "nobody has any": lambda r, n: 0,
}
FORMS = ["all_gather_v", "gather_v", "scatter_v", "reduce_scatter_v", "all_to_all_v"]


def rows_of(counts: list[int], rank: int) -> slice:
    start = sum(counts[:rank])
    return slice(start, start + counts[rank])


def strided(array: Array) -> Array:
    """The same values, with a gap after each row and the rows backwards in memory."""
    wide = np.zeros((2 * len(array), 5), array.dtype)
    view: Array = wide[::2, 1:3][::-1]
    view[...] = array
    return view


def blocks_of(counts: list[int]) -> list[Array]:
    return [leaf(r, "f32", (count, 2), seed=5) for r, count in enumerate(counts)]


def same(found: Array, expected: Array) -> bool:
    return found.shape == expected.shape and found.tobytes() == expected.tobytes()


def move(comm: isobit.Communicator, uneven: str) -> None:
    n, rank = comm.world_size, comm.rank
    counts = [UNEVEN[uneven](r, n) for r in range(n)]
    blocks = blocks_of(counts)
    mine, whole = blocks[rank], np.concatenate(blocks)
    own = rows_of(counts, rank)

    assert same(comm.all_gather_v(mine, counts), whole)
    assert same(comm.all_gather_v(strided(mine), counts, timeout=60), whole)
    for out in (np.full_like(whole, 7), strided(np.full_like(whole, 7))):
        assert comm.all_gather_v(mine, counts, out) is out
        assert same(out, whole)
        out[...] = 7
        out[own] = mine
        assert same(comm.all_gather_v(out[own], counts, out), whole), "in place"

    for root in {0, n - 1}:
        out = np.full_like(whole, 7)
        out[own] = mine
        for given, place in ((mine, None), (strided(mine), np.full_like(whole, 7)), (out[own], out)):
            gathered = comm.gather_v(given, counts, place, root=root)
            assert gathered is None if rank != root else same(gathered, whole)
        for given, place in ((whole.copy(), np.full_like(mine, 7)), (strided(whole), strided(mine))):
            assert comm.scatter_v(given if rank == root else None, counts, place, root=root) is place
            assert same(place, mine)
        inplace = whole.copy()
        if rank == root:
            assert same(comm.scatter_v(inplace, counts, inplace[own], root=root), mine)
            assert same(comm.scatter_v(whole, counts, root=root), mine)
            assert same(inplace, whole)
        else:
            for _ in range(2):
                assert same(comm.scatter_v(None, counts, np.full_like(mine, 7), root=root), mine)
    assert same(mine, blocks_of(counts)[rank]), "what is only read stays as it was"


@pytest.mark.parametrize("uneven", UNEVEN)
def test_blocks_of_any_sizes_are_joined_and_split(group: Group, uneven: str) -> None:
    results(group, move, uneven)


def combine(comm: isobit.Communicator, uneven: str) -> None:
    n, rank = comm.world_size, comm.rank
    counts = [UNEVEN[uneven](r, n) for r in range(n)]
    own = rows_of(counts, rank)
    tensor = leaf(rank, "f32", (sum(counts), 2), seed=6)
    expected = comm.all_reduce(tensor.copy(), op="mean")[own]
    assert same(comm.reduce_scatter_v(tensor, counts, op="mean"), expected)
    for given in (tensor, strided(tensor)):
        for out in (np.full_like(expected, 7), strided(np.full_like(expected, 7))):
            assert comm.reduce_scatter_v(given, counts, out, op="mean") is out
            assert same(out, expected)
    inplace = tensor.copy()
    assert same(comm.reduce_scatter_v(inplace, counts, inplace[own], op="mean"), expected)
    wide = comm.reduce_scatter_v(tensor, counts, out_dtype="f64", order="exact")
    assert same(wide, comm.all_reduce(tensor.copy(), out_dtype="f64", order="exact")[own])


@pytest.mark.parametrize("uneven", UNEVEN)
def test_blocks_of_any_sizes_are_combined_with_the_bits_of_all_reduce(group: Group, uneven: str) -> None:
    results(group, combine, uneven)


def exchange(comm: isobit.Communicator) -> None:
    n, rank = comm.world_size, comm.rank
    # Rank 0 sends nothing, the last gets nothing; one pair has far more than the others.
    matrix = [[0 if i == 0 or j == n - 1 else (i * j + 1) for j in range(n)] for i in range(n)]
    matrix[n - 1][0] = 30_000
    sends, receives = matrix[rank], [row[rank] for row in matrix]
    rows = np.array([[rank, j] for j in range(n) for _ in range(sends[j])], np.int64).reshape(-1, 2)
    expected = np.array([[i, rank] for i in range(n) for _ in range(receives[i])], np.int64).reshape(-1, 2)
    assert same(comm.all_to_all_v(rows, sends, receives), expected)
    for out in (np.full_like(expected, 7), strided(np.full_like(expected, 7))):
        assert comm.all_to_all_v(strided(rows), sends, receives, out) is out
        assert same(out, expected)


def test_each_rank_gets_as_much_as_each_other_meant_for_it(group: Group) -> None:
    results(group, exchange)


def in_the_background(comm: isobit.Communicator) -> None:
    counts = list(range(comm.world_size))
    works = [comm.all_gather_v(np.full((comm.rank, 2), k), counts, async_op=True) for k in range(4)]
    for k, work in enumerate(works):
        assert same(work.wait(), np.full((sum(counts), 2), k))


def test_several_may_be_in_flight(group: Group) -> None:
    results(group, in_the_background)


def test_a_v_form_has_the_options_of_its_plain_form() -> None:
    for form in FORMS:
        plain = set(inspect.signature(getattr(isobit.Communicator, form.removesuffix("_v"))).parameters)
        assert set(inspect.signature(getattr(isobit.Communicator, form)).parameters) == plain
        assert callable(getattr(isobit, form))


WORLD, ODD = 3, 1


@pytest.fixture(scope="module")
def three() -> Iterator[Processes]:
    group = Processes(WORLD)
    yield group
    group.close()


def call(comm: isobit.Communicator, form: str, counts: Any) -> Any:
    """The form with blocks of 1, 2 and 3 rows, but for `counts` on one rank."""
    right = [1, 2, 3]
    counts = counts if comm.rank == ODD else right
    mine, whole = np.ones((right[comm.rank], 2)), np.ones((6, 2))
    if form == "all_to_all_v":
        wanted = counts if comm.rank == ODD and isinstance(counts, list) else [right[comm.rank]] * WORLD
        return comm.all_to_all_v(whole, counts, wanted)
    if form == "scatter_v":
        return comm.scatter_v(whole if comm.rank == ODD else None, counts, mine, root=ODD)
    tensor = whole if form == "reduce_scatter_v" else mine
    if form == "gather_v":
        return comm.gather_v(tensor, counts, root=ODD)
    return getattr(comm, form)(tensor, counts)


def refused(comm: isobit.Communicator, form: str, counts: Any) -> str:
    try:
        call(comm, form, counts)
        comm.barrier()
    except (TypeError, ValueError, isobit.RemoteArgumentError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("counts", "kind", "word"),
    [
        (None, "TypeError", "needed"),
        (3, "TypeError", "sequence of integers"),
        ([1.0, 2.0, 3.0], "TypeError", "sequence of integers"),
        ([1, 2], "ValueError", "give one a rank"),
        ([1, -2, 7], "ValueError", "fewer than 0"),
        ([1, 1, 3], "ValueError", "rows"),
    ],
    ids=str,
)
def test_wrong_counts_on_one_rank_are_refused_on_all(
    three: Processes, form: str, counts: Any, kind: str, word: str
) -> None:
    for rank, told in enumerate(results(three, refused, form, counts)):
        assert told.startswith(kind if rank == ODD else "RemoteArgumentError"), told
        assert rank == ODD or f"rank {ODD} failed in {form.removesuffix('_v')}" in told
        assert word in told
    assert results(three, call, "reduce_scatter_v", [1, 2, 3])[0].tolist() == [[3.0, 3.0]]


def agree_not(comm: isobit.Communicator, form: str) -> BaseException | None:
    """One rank's counts are right for its own tensors and wrong about the others'."""
    counts = {"all_to_all_v": [2, 2, 2], "scatter_v": [3, 2, 1], "reduce_scatter_v": [3, 2, 1]}
    try:
        call(comm, form, counts.get(form, [3, 2, 1]))
        comm.barrier()
    except isobit.Error as error:
        return error
    return None


@pytest.mark.parametrize("form", FORMS)
def test_counts_that_differ_between_ranks_are_named_on_every_rank(three: Processes, form: str) -> None:
    for error in three.outcomes(agree_not, form):
        assert isinstance(error, isobit.Desync), error
        assert f"rank {ODD}" in str(error)
        if form == "all_to_all_v":
            assert re.search(r"count is \d+ on rank \d and \d+ on rank \d", str(error))
        else:
            assert "[2, 4, 6] elements a rank" in str(error)
            assert "[6, 4, 2] elements a rank" in str(error)
    assert results(three, call, "reduce_scatter_v", [1, 2, 3])[0].tolist() == [[3.0, 3.0]]
