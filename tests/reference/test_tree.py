"""The tree's shape, revealed from outside, and the identities that follow from it."""

from __future__ import annotations

import ctypes
import platform
import random
import shutil
import subprocess
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isobit.reference import tree
from isobit.reference.contract import Contract, contract
from isobit.reference.dtype import FLOATS, Bits, Dtype
from isobit.reference.leaves import LeafMap
from isobit.reference.op import Order, ReduceOp
from isobit.reference.reduce import contribute, finish, reduce
from isobit.reference.rounding import convert

LEAF_COUNTS = (1, 2, 3, 5, 7, 8, 12, 24, 48, 60, 64, 97)


def common(first: int, second: int, leaves: int) -> int:
    """Leaves under the lowest node ``(j, k)`` above both, from the definition alone."""
    j = 0
    while first >> j != second >> j:
        j += 1
    return min(((first >> j) + 1) << j, leaves) - (first >> j << j)


@pytest.mark.parametrize("leaves", LEAF_COUNTS)
def test_masks_reveal_the_documented_tree(leaves: int) -> None:
    # M swallows every 1 that joins it before -M does: what is left counts the leaves outside.
    pairs = [(i, j) for i in range(leaves) for j in range(leaves) if i != j]
    columns = np.ones((leaves, len(pairs)), np.float32)
    for column, (plus, minus) in enumerate(pairs):
        columns[plus, column], columns[minus, column] = 2.0**60, -(2.0**60)
    made = contract(ReduceOp.SUM, leaves, Dtype.F32, accumulate=Dtype.F32)
    found = reduce(made, list(columns))
    assert found.tolist() == [leaves - common(i, j, leaves) for i, j in pairs]


def test_lower_leaves_stand_on_the_left(monkeypatch: pytest.MonkeyPatch) -> None:
    # Which side a value stands on shows only in a recording combination.
    seen: list[tuple[int, int]] = []
    made = contract(ReduceOp.BOR, 5, Dtype.U64)
    original = tree.combine

    def record(made_: Contract, left: Bits, right: Bits) -> Bits:
        seen.append((int(left[0]), int(right[0])))
        return original(made_, left, right)

    monkeypatch.setattr(tree, "combine", record)
    reduce(made, [np.array([1 << leaf], np.uint64) for leaf in range(5)])
    assert seen == [(0b1, 0b10), (0b100, 0b1000), (0b11, 0b1100), (0b1111, 0b10000)]


def random_leaves(count: int, size: int, dtype: Dtype, rng: random.Random) -> list[Bits]:
    """Finite leaves, so that no inner node is a NaN whose payload is nobody's promise."""
    if not dtype.is_float:
        return [np.array([rng.getrandbits(8 * dtype.size) for _ in range(size)], dtype.bits) for _ in range(count)]
    fmt = dtype.format
    low, high = (fmt.bias - 4) << fmt.mantissa_bits, (fmt.bias + 2) << fmt.mantissa_bits
    return [
        np.array([rng.randrange(low, high) | rng.choice([0, fmt.sign_bit]) for _ in range(size)], dtype.bits)
        for _ in range(count)
    ]


ASKED = [
    (ReduceOp.SUM, Order.TREE, Dtype.F32),
    (ReduceOp.MEAN, Order.TREE, Dtype.BF16),
    (ReduceOp.PROD, Order.TREE, Dtype.F16),
    (ReduceOp.MAX, Order.TREE, Dtype.F8E4M3FN),
    (ReduceOp.SUM, Order.TREE, Dtype.I8),
    (ReduceOp.BXOR, Order.TREE, Dtype.BOOL),
    (ReduceOp.SUM, Order.EXACT, Dtype.F32),
    (ReduceOp.MEAN, Order.EXACT, Dtype.BF16),
    (ReduceOp.SUM, Order.EXACT, Dtype.F64),
]


@given(
    asked=st.sampled_from(ASKED),
    leaves=st.sampled_from(LEAF_COUNTS),
    world_size=st.sampled_from([*range(1, 18), 24, 31, 32, 33, 64]),
    contiguous=st.booleans(),
    seed=st.integers(0, 1 << 32),
)
@settings(max_examples=150, deadline=None)
def test_every_ownership_gives_the_same_bits(
    asked: tuple[ReduceOp, Order, Dtype], leaves: int, world_size: int, contiguous: bool, seed: int
) -> None:
    op, order, dtype = asked
    rng = random.Random(seed)
    made = contract(op, leaves, dtype, order)
    data = random_leaves(leaves, 3, dtype, rng)
    if contiguous:
        cuts = [0, *sorted(rng.randint(0, leaves) for _ in range(world_size - 1)), leaves]
        owners = LeafMap.of(leaves, [range(a, b) for a, b in pairwise(cuts)])
    else:
        owner = [rng.randrange(world_size) for _ in range(leaves)]
        owners = LeafMap.of(leaves, [[i for i in range(leaves) if owner[i] == r] for r in range(world_size)])
    sent = [
        part
        for rank in range(world_size)
        for part in contribute(made, owners, rank, {leaf: data[leaf] for leaf in owners.ranks[rank]})
    ]
    rng.shuffle(sent)
    assert finish(made, sent).tobytes() == reduce(made, data).tobytes()


@given(asked=st.sampled_from(ASKED), leaves=st.sampled_from(LEAF_COUNTS), seed=st.integers(0, 1 << 32))
@settings(max_examples=50, deadline=None)
def test_reducing_parts_of_tensors_is_reducing_tensors(
    asked: tuple[ReduceOp, Order, Dtype], leaves: int, seed: int
) -> None:
    op, order, dtype = asked
    data = random_leaves(leaves, 5, dtype, random.Random(seed))
    made = contract(op, leaves, dtype, order)
    parts = [reduce(made, [leaf[slice(*cut)] for leaf in data]) for cut in ((0, 2), (2, 5))]
    assert np.concatenate(parts).tobytes() == reduce(made, data).tobytes()


@given(
    dtype=st.sampled_from(FLOATS),
    op=st.sampled_from([ReduceOp.SUM, ReduceOp.MEAN]),
    leaves=st.sampled_from(LEAF_COUNTS),
    seed=st.integers(0, 1 << 32),
)
@settings(max_examples=50, deadline=None)
def test_the_exact_order_does_not_see_the_order(dtype: Dtype, op: ReduceOp, leaves: int, seed: int) -> None:
    rng = random.Random(seed)
    patterns = 2 * dtype.format.sign_bit
    data = [np.array([rng.randrange(patterns) for _ in range(4)], dtype.bits) for _ in range(leaves)]
    made = contract(op, leaves, dtype, Order.EXACT)
    before = reduce(made, data).tobytes()
    rng.shuffle(data)
    assert reduce(made, data).tobytes() == before


def test_two_leaves_swapped_change_a_tree_sum() -> None:
    made = contract(ReduceOp.SUM, 4, Dtype.F32, accumulate=Dtype.F32)
    leaves = [np.array([x], np.float32) for x in (2.0**60, 1.0, -(2.0**60), 1.0)]
    swapped = [leaves[0], leaves[2], leaves[1], leaves[3]]
    assert (reduce(made, leaves)[0], reduce(made, swapped)[0]) == (0, 2)


def test_a_result_keeps_the_shape_and_takes_the_type() -> None:
    made = contract(ReduceOp.MEAN, 3, Dtype.BF16, out_dtype=Dtype.F32)
    result = reduce(made, [np.full((2, 3), 0x3F80, np.uint16)] * 3)
    assert (result.shape, result.dtype, result.tolist()) == ((2, 3), np.dtype("f4"), [[1.0] * 3] * 2)
    assert reduce(made, [np.empty((0, 4), np.uint16)] * 3).shape == (0, 4)


def test_leaves_that_do_not_fit_are_refused() -> None:
    made = contract(ReduceOp.SUM, 2, Dtype.F32)
    with pytest.raises(ValueError, match="2 leaves, not 1"):
        reduce(made, [np.zeros(1, np.float32)])
    with pytest.raises(ValueError, match="shape"):
        reduce(made, [np.zeros(1, np.float32), np.zeros(2, np.float32)])
    with pytest.raises(ValueError, match="4 bytes"):
        reduce(made, [np.zeros(1, np.float64)] * 2)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="sets the x86 control register")
@pytest.mark.parametrize("mode", [0x9FC0, 0x7F80])
def test_a_thread_that_flushes_or_rounds_elsewhere_is_refused(mode: int, tmp_path: Path) -> None:
    """0x9fc0 flushes subnormals, in and out; 0x7f80 rounds toward zero."""
    source = tmp_path / "mode.c"
    source.write_text("void set_mode(unsigned mode) { __builtin_ia32_ldmxcsr(mode); }\n")
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    assert compiler, "isobit is built with a C compiler"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", tmp_path / "mode.so", source], check=True)
    library = ctypes.CDLL(str(tmp_path / "mode.so"))
    outcome: list[object] = []

    def misbehave() -> None:  # in a thread of its own, which takes its mode away with it
        library.set_mode(mode)
        try:
            outcome.append(convert(np.array([0x00018000], np.uint32), Dtype.F32, Dtype.BF16).tolist())
            reduce(contract(ReduceOp.SUM, 1, Dtype.F32), [np.zeros(1, np.float32)])
        except RuntimeError as error:
            outcome.append(str(error))

    thread = threading.Thread(target=misbehave)
    thread.start()
    thread.join()
    converted, refusal = outcome
    assert converted == [2]
    assert "does not compute f32 by IEEE 754" in str(refusal)
