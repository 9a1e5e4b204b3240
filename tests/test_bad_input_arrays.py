"""Arrays that can't be used (items 11 to 19 of the bad inputs): right results, or an error on every rank."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import isobit
import numpy as np
import pytest
from calls import CALLS
from ranks import Processes, results, wait_until
from truth import Array

WORLD = 3
ODD = 1


@pytest.fixture(scope="module")
def shared() -> Iterator[Processes]:
    group = Processes(WORLD)
    yield group
    group.close()


@pytest.fixture
def group(shared: Processes) -> Iterator[Processes]:
    yield shared
    assert shared.outcomes(goes_on) == [float(WORLD)] * WORLD, "the group goes on with the next call"


def goes_on(comm: isobit.Communicator) -> float:
    return float(comm.all_reduce(np.ones(1, np.float32))[0])


def overlapping(tensor: Array, out: Array) -> tuple[Any, Any]:
    base = np.arange(float(max(tensor.size, out.size) + 1))
    return base[: tensor.size].reshape(tensor.shape), base[1 : out.size + 1].reshape(out.shape)


def reversed_overlap(tensor: Array, out: Array) -> tuple[Any, Any]:
    base = np.arange(float(max(tensor.size, out.size)))
    return base[: tensor.size].reshape(tensor.shape), base[: out.size][::-1].reshape(out.shape)


def read_only(out: Array) -> Array:
    out.flags.writeable = False
    return out


def requires_grad(out: Array) -> Any:
    from test_tensors import Tensor

    return Tensor(out, requires_grad=True)


def unversioned_dlpack(out: Array) -> Any:
    from test_tensors import Exporter

    return Exporter(out, versioned=False)


def strided(out: Array, *strides: int) -> Array:
    return np.lib.stride_tricks.as_strided(np.ones(out.size), out.shape, strides)


#: What is wrong with one rank's arrays, made of right ones.
WRONG: dict[str, Callable[[Array, Array], tuple[Any, Any]]] = {
    "stride 0": lambda tensor, out: (tensor, strided(out, 0, 0)),
    "windows": lambda tensor, out: (tensor, strided(out, 8, 8)),
    "overlap": overlapping,
    "reversed overlap": reversed_overlap,
    "read-only": lambda tensor, out: (tensor, read_only(out)),
    "requires grad": lambda tensor, out: (tensor, requires_grad(out)),
    "jax-like": lambda tensor, out: (tensor, unversioned_dlpack(out)),
    "object": lambda tensor, out: (tensor.astype(object), out.astype(object)),
    "str": lambda tensor, out: (tensor.astype(str), out.astype(str)),
    "complex": lambda tensor, out: (tensor.astype(complex), out.astype(complex)),
    "big-endian": lambda tensor, out: (tensor.astype(">f8"), out.astype(">f8")),
    "list": lambda tensor, out: (tensor.tolist(), out.tolist()),
    "another dtype": lambda tensor, out: (tensor, out.astype(np.int64)),
    "another shape": lambda tensor, out: (tensor, np.ones((out.shape[0] + 1, 2))),
}
#: The calls with an `out`, and a receive.
NAMES = [*(name for name in CALLS if name not in ("all_reduce in place", "broadcast")), "recv"]
#: Those in which the odd rank gives a tensor as well.
BOTH = [name for name in NAMES if name not in ("scatter", "recv")]


def use(comm: isobit.Communicator, name: str, what: str) -> tuple[str, str]:
    """One rank's arrays are wrong: what this rank was told, at once or at its next call."""
    # The odd rank is the root where the root has the result, and is not where the others have it.
    root = 0 if name == "scatter" else ODD
    tensor = np.arange(12.0).reshape(6, 2)
    out = np.full(CALLS[name].out(tensor.shape, WORLD) if name in CALLS else tensor.shape, 7.0)
    given, place = WRONG[what](tensor, out) if comm.rank == ODD else (tensor, out)
    kept = [array for array in (given, place, out) if isinstance(array, np.ndarray)]
    before = [array.tobytes() for array in kept if array.dtype != object]
    try:
        if name in CALLS:
            CALLS[name].make(comm, given, place, root)
        elif comm.rank == ODD:
            comm.recv(place, 0)
        elif comm.rank == 0:
            comm.send(tensor, ODD)
        comm.barrier()
    except (TypeError, ValueError, isobit.RemoteArgumentError) as error:
        assert [array.tobytes() for array in kept if array.dtype != object] == before
        return type(error).__name__, str(error)
    return "nothing", ""


def check(group: Processes, name: str, what: str, kind: str, *words: str) -> None:
    for rank, (found, message) in enumerate(results(group, use, name, what)):
        if rank == ODD:
            assert found == kind, (found, message)
            assert all(word in message for word in words), message
        else:
            assert found == "RemoteArgumentError", (rank, found, message)
            assert f"rank {ODD} failed in {name}: {kind}: " in message
            assert re.search(rf"; called at \S+\.py:\d+ on rank {ODD}", message), message


every_name = pytest.mark.parametrize("name", NAMES)


#: Counts around those where 32 bits end.
VAST = [base + more for base in (2**31, 2**32) for more in (-1, 0, 1)]


def swept(comm: isobit.Communicator) -> list[str]:
    """A broadcast of each of these counts, of which few bytes are not zero: what went wrong.

    What the root never wrote to takes no memory, and all counts share the other's.
    """
    memory = np.zeros(max(VAST) + 1, np.uint8)
    wrong = []
    for count in VAST:
        edges = [0, 2**31 - 1, 2**31, 2**32 - 1, 2**32, count - 1]
        random = np.random.default_rng(count)
        places = np.unique([*(edge for edge in edges if edge < count), *random.integers(count, size=64)])
        values = random.integers(1, 256, size=places.size, dtype=np.uint8)
        tensor = memory[:count]
        if comm.rank == 0:
            tensor[places] = values
        else:
            memory[count] = 77
        comm.broadcast(tensor)
        if not np.array_equal(tensor[places], values):
            wrong.append(f"{count}: not what was sent")
        tensor[places] = 0
        if comm.rank != 0 and (np.count_nonzero(tensor) or memory[count] != 77):
            wrong.append(f"{count}: more than was sent")
        memory[count] = 0
    return wrong


@pytest.fixture
def pair() -> Iterator[Processes]:
    made = Processes(2)
    yield made
    made.close()


def test_item_11_sizes_around_2_to_the_31_and_32_arrive(pair: Processes) -> None:
    assert results(pair, swept) == [[], []]


def sum_around(comm: isobit.Communicator, count: int) -> bool:
    """A sum of so many bytes in place, of which few were written to."""
    tensor = np.zeros(count, np.uint8)
    tensor[:: 1 << 20] = comm.rank + 1
    tensor[-3:] = [1, 2, 100 * comm.rank]
    comm.all_reduce(tensor)
    return tensor[-3:].tolist() == [2, 4, 100] and bool((tensor[:: 1 << 20][:-1] == 3).all())


def test_item_11_more_than_2_to_the_31_elements_are_added(pair: Processes) -> None:
    assert results(pair, sum_around, 2**31 + 5) == [True, True]


def counted(comm: isobit.Communicator) -> list[tuple[int, int]]:
    """What a sum of each of these counts sends and receives."""
    told = [comm.explain("all_reduce", count, dtype) for dtype in ("u8", "f64") for count in VAST]
    return [(each.bytes_sent, each.bytes_received) for each in told]


def test_item_11_sizes_around_2_to_the_31_and_32_are_counted_right(pair: Processes) -> None:
    # A rank sends the half of its tensor that the other adds, and the half that it has added.
    expected = [(count * size, count * size) for size in (1, 8) for count in VAST]
    assert results(pair, counted) == [expected, expected]


def layouts(comm: isobit.Communicator) -> None:
    base = np.arange(48.0).reshape(6, 8) + comm.rank
    expected = np.arange(48.0).reshape(6, 8) * WORLD + sum(range(WORLD))
    views: list[Callable[[Any], Any]] = [
        lambda a: a[::2, ::3],
        lambda a: a.T,
        lambda a: a[::-1, ::-2],
        lambda a: a[1:4, 2:5],
    ]
    for view in views:
        target = np.zeros((6, 8))
        comm.all_reduce(view(base.copy()), view(target))
        outside = np.ones((6, 8), bool)
        view(outside)[...] = False
        assert np.array_equal(view(target), view(expected))
        assert not target[outside].any()


def test_item_12_arrays_of_any_layout_give_right_results(group: Processes) -> None:
    results(group, layouts)


@pytest.mark.parametrize(
    ("name", "what"),
    [(name, what) for name in NAMES for what in ("stride 0", "windows")]
    + [(name, what) for name in BOTH for what in ("overlap", "reversed overlap")],
)
def test_item_13_an_out_that_shares_memory_is_a_value_error_before_anything_is_sent(
    group: Processes, name: str, what: str
) -> None:
    check(group, name, what, "ValueError", "overlaps tensor" if "overlap" in what else "share memory")


@every_name
@pytest.mark.parametrize("what", ["read-only", "requires grad", "jax-like"])
def test_item_14_an_out_that_may_not_be_written_is_a_type_error(group: Processes, name: str, what: str) -> None:
    check(group, name, what, "TypeError", "requires grad" if what == "requires grad" else "read-only")


def into_bytes(comm: isobit.Communicator) -> str:
    try:
        comm.all_reduce(np.ones(4, np.uint8), b"abcd" if comm.rank == ODD else np.ones(4, np.uint8))
    except (TypeError, isobit.RemoteArgumentError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def test_item_14_bytes_are_no_out(group: Processes) -> None:
    found = results(group, into_bytes)
    assert found[ODD].startswith("TypeError: ")
    assert "read-only" in found[ODD]
    assert all(told.startswith("RemoteArgumentError") for rank, told in enumerate(found) if rank != ODD)


@every_name
@pytest.mark.parametrize("what", ["object", "str", "complex", "big-endian"])
def test_item_15_an_unsupported_dtype_is_a_type_error_that_lists_the_supported_ones(
    group: Processes, name: str, what: str
) -> None:
    check(group, name, what, "TypeError", "supported, in little-endian byte order: f8e4m3fn, f8e5m2, f16, bf16, f32")


# For all_gather a list is several tensors, and so is its out.
@pytest.mark.parametrize("name", [name for name in NAMES if name != "all_gather"])
def test_item_15_a_list_of_numbers_is_a_type_error(group: Processes, name: str) -> None:
    check(group, name, "list", "TypeError", "must be an array")


@pytest.mark.parametrize("name", BOTH)
def test_an_out_of_another_shape_is_a_value_error(group: Processes, name: str) -> None:
    check(group, name, "another shape", "ValueError", "shape")


@pytest.mark.parametrize("name", [name for name in BOTH if not CALLS[name].reduces])
def test_an_out_of_another_dtype_is_a_value_error(group: Processes, name: str) -> None:
    check(group, name, "another dtype", "ValueError", "f64", "i64")


SPECIAL = [np.nan, np.inf, -np.inf, -0.0, 5e-324, -5e-324, 2.2e-308]


def special(comm: isobit.Communicator, op: str) -> bytes:
    values = np.array(SPECIAL * 2)
    if comm.rank == ODD:
        values[:7] = np.array([0x7FF4_0000_DEAD_BEEF] * 7, np.uint64).view(np.float64)
    result: bytes = comm.all_reduce(values, op=op).tobytes()  # type: ignore[arg-type]
    return result


@pytest.mark.parametrize("op", ["sum", "min", "max", "prod"])
def test_item_16_special_values_have_the_same_bits_on_every_rank_and_nan_is_canonical(
    group: Processes, op: str
) -> None:
    found = results(group, special, op)
    assert len(set(found)) == 1
    bits = np.frombuffer(found[0], np.uint64)
    assert (bits[:7] == 0x7FF8_0000_0000_0000).all()
    assert bits[7] == 0x7FF8_0000_0000_0000
    if op in ("sum", "min", "max"):
        assert bits[10] == 1 << 63, "-0 on every rank stays -0"
    if op in ("min", "max"):
        assert bits[11] == 1, "a subnormal is kept"


def overflow(comm: isobit.Communicator) -> list[int]:
    found: list[int] = comm.all_reduce(np.array([2**62, -(2**62), 2**63 - 1])).tolist()
    return found


def test_item_17_integer_sums_wrap_around(group: Processes) -> None:
    expected = [((WORLD * value) + 2**63) % 2**64 - 2**63 for value in (2**62, -(2**62), 2**63 - 1)]
    assert results(group, overflow) == [expected] * WORLD


def unaligned(comm: isobit.Communicator) -> list[float]:
    tensor = np.zeros(3 * 8 + 1, np.uint8)[1:].view(np.float64)
    tensor[...] = comm.rank
    assert not tensor.flags.aligned
    comm.all_reduce(tensor)
    found: list[float] = tensor.tolist()
    return found


def test_item_18_an_unaligned_array_is_copied_and_right(group: Processes) -> None:
    assert results(group, unaligned) == [[float(sum(range(WORLD)))] * 3] * WORLD


def truncated(comm: isobit.Communicator, folder: Path) -> str:
    file = folder / str(comm.rank)
    mapped = np.memmap(file, np.float64, "w+", shape=(1000, 100))
    if comm.rank == ODD:
        os.truncate(file, 4096)
    try:
        comm.all_reduce(mapped, np.ones((1000, 100)))
    except (ValueError, isobit.RemoteArgumentError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def test_item_18_a_mapped_file_that_was_truncated_is_an_error_on_every_rank(group: Processes, tmp_path: Path) -> None:
    found = results(group, truncated, tmp_path)
    assert found[ODD].startswith("ValueError: tensor is an array over a mapped file")
    assert all(outcome.startswith("RemoteArgumentError") for rank, outcome in enumerate(found) if rank != ODD)


def keep(comm: isobit.Communicator, begun: Path) -> list[str]:
    """Arrays of calls in the background; the others come when this rank has tried to change them."""
    if comm.rank != ODD:
        wait_until(begun.exists, "the odd rank has tried")
    numbers, raw = np.ones(1000), bytearray([comm.rank + 1] * 8)
    works = [comm.all_reduce(numbers, async_op=True), comm.all_reduce(raw, op="max", async_op=True)]
    # Nobody but the call has this tensor.
    kept = comm.all_reduce(np.full(1000, 2.0), out=np.empty(1000), async_op=True)
    told = []
    if comm.rank == ODD:
        changes: list[Callable[[], None]] = [lambda: numbers.resize(2000), lambda: raw.extend(b"more")]
        for change in changes:
            try:
                change()
            except (ValueError, BufferError) as error:
                told.append(type(error).__name__)
        # Whoever gave the memory of an array away would see it filled with these.
        filler = [np.full(1000, -1.0) for _ in range(100)]
        begun.touch()
    assert np.array_equal(kept.wait(), np.full(1000, 2.0 * WORLD))
    assert np.array_equal(works[0].wait(), np.full(1000, float(WORLD)))
    assert works[1].wait() == bytes([WORLD] * 8)
    if comm.rank == ODD:
        del filler
    raw.extend(b"more")
    assert len(raw) == 12
    return told


def test_item_19_arrays_of_a_call_in_progress_can_not_be_resized_and_are_kept(group: Processes, tmp_path: Path) -> None:
    expected: list[list[str]] = [[] for _ in range(WORLD)]
    expected[ODD] = ["ValueError", "BufferError"]
    assert results(group, keep, tmp_path / "begun") == expected
