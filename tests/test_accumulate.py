"""Leaves added one by one: the same bits at every world size, in every order of adding."""

from __future__ import annotations

from typing import Any

import isobit
import numpy as np
import pytest
from ranks import Group, results
from truth import expected, leaf

SHAPE = (5, 2)


def accumulate(
    comm: isobit.Communicator, num_leaves: int, dtype: str, op: Any, order: Any, seed: int, more: dict[str, Any]
) -> bytes:
    kind: dict[str, Any] = {"shape": SHAPE, "dtype": dtype} if num_leaves < comm.world_size else {}
    with comm.accumulate(num_leaves=num_leaves, order=order, **more, **kind) as acc:
        shuffled = np.random.default_rng([seed, comm.rank]).permutation(acc.leaves)
        for number in shuffled:
            acc.add(number, leaf(int(number), dtype, SHAPE, kind="everyday"))
        result: bytes = acc.all_reduce(op=op).tobytes()
    return result


@pytest.mark.parametrize("order", ["tree", "exact"])
@pytest.mark.parametrize("num_leaves", [1, 2, 3, 7, 24, 64])
def test_the_bits_depend_on_the_leaves_alone(group: Group, num_leaves: int, order: str) -> None:
    for op, dtype in (("sum", "f32"), ("mean", "bf16"), ("mean", "f64"), ("sum", "i32")):
        for seed in range(3):
            found = results(group, accumulate, num_leaves, dtype, op, order, seed, {})
            law = expected(num_leaves, dtype, SHAPE, op, order, kind="everyday")
            assert found == [law] * group.world_size, (op, dtype, seed)


def test_accumulator_and_result_can_be_chosen(group: Group) -> None:
    more = {"accumulate": "f64", "out_dtype": "float32"}
    law = expected(12, "bf16", SHAPE, "mean", kind="everyday", accumulate="f64", out_dtype="f32")
    assert results(group, accumulate, 12, "bf16", "mean", "tree", 0, more) == [law] * group.world_size


def scatter(comm: isobit.Communicator, counts: list[int] | None) -> bytes:
    rows = comm.world_size * 3
    with comm.accumulate(num_leaves=9, shape=(rows, 2), dtype=np.float32) as acc:
        for number in acc.leaves:
            acc.add(number, leaf(number, "f32", (rows, 2), kind="everyday"))
        part = acc.reduce_scatter(op="mean", counts=counts)
    whole: np.ndarray[Any, Any] = comm.all_gather(part, counts=counts)
    return whole.tobytes()


def test_reduce_scatter_gives_the_rows_of_all_reduce(group: Group) -> None:
    rows = group.world_size * 3
    law = expected(9, "f32", (rows, 2), "mean", kind="everyday")
    uneven = [0] * (group.world_size - 1) + [rows]
    assert set(results(group, scatter, None)) == {law}
    assert set(results(group, scatter, uneven)) == {law}


def ownership(comm: isobit.Communicator, num_leaves: int) -> list[int]:
    return list(comm.accumulate(num_leaves=num_leaves).leaves)


def test_every_leaf_is_owned_once(group: Group) -> None:
    for num_leaves in (1, 5, 64):
        owned = results(group, ownership, num_leaves)
        assert [leaf for leaves in owned for leaf in leaves] == list(range(num_leaves))


def test_leaves_that_are_wrong_are_refused_and_the_rest_still_counts() -> None:
    comm = isobit.init()
    with comm.accumulate(num_leaves=2) as acc:
        acc.add(0, np.ones(3, np.float32))
        with pytest.raises(ValueError, match="leaf 0 was added before"):
            acc.add(0, np.ones(3, np.float32))
        with pytest.raises(ValueError, match="leaf 2"):
            acc.add(2, np.ones(3, np.float32))
        with pytest.raises(ValueError, match="leaves must be alike"):
            acc.add(1, np.ones(4, np.float32))
        with pytest.raises(ValueError, match="leaves must be alike"):
            acc.add(1, np.ones(3, np.float64))
        with pytest.raises(TypeError, match="integer"):
            acc.add(1.0, np.ones(3, np.float32))  # type: ignore[arg-type]
        acc.add(1, np.ones(6, np.float32)[::2])
        assert np.array_equal(acc.all_reduce(), [2, 2, 2])
        with pytest.raises(isobit.Error, match="ended"):
            acc.add(1, np.ones(3, np.float32))


def test_a_missing_leaf_is_named() -> None:
    acc = isobit.init().accumulate(num_leaves=3)
    acc.add(0, np.ones(2))
    acc.add(2, np.ones(2))
    with pytest.raises(ValueError, match="leaf 1"):
        acc.all_reduce()


def test_a_rank_without_leaves_must_know_what_to_expect() -> None:
    first, second = isobit.memory_group(2)
    assert list(second.accumulate(num_leaves=1).leaves) == []
    with pytest.raises(ValueError, match="shape and dtype are unknown"):
        second.accumulate(num_leaves=1).all_reduce()
    with pytest.raises(ValueError, match="leaf"):
        first.accumulate(num_leaves=0)
    with pytest.raises(ValueError, match="negative"):
        first.accumulate(num_leaves=-1)


def into_out(comm: isobit.Communicator) -> None:
    out = np.zeros((2, 6), np.float32)[:, ::2]
    with comm.accumulate(num_leaves=1) as acc:
        for number in acc.leaves:
            acc.add(number, np.full((2, 3), 4, np.float32))
        assert acc.all_reduce(out=out) is out
    assert np.array_equal(out, np.full((2, 3), 4))


def test_out_may_be_given_and_tells_a_rank_without_leaves_what_to_expect(group: Group) -> None:
    results(group, into_out)
