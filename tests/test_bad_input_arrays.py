"""Arrays that can't be used (items 11 to 19 of the bad inputs): right results, or an error on every rank."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import isobit
import numpy as np
import pytest
from ranks import Processes, results

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


def read_only() -> Any:
    array = np.ones(4)
    array.flags.writeable = False
    return array


def overlapping() -> tuple[Any, Any]:
    base = np.arange(5.0)
    return base[:-1], base[1:]


def requires_grad() -> Any:
    from test_tensors import Tensor

    return Tensor(np.ones(4), requires_grad=True)


def unversioned_dlpack() -> Any:
    from test_tensors import Exporter

    return Exporter(np.ones(4), versioned=False)


WRONG: dict[str, Callable[[], tuple[Any, Any]]] = {
    "stride 0": lambda: (np.ones(4), np.lib.stride_tricks.as_strided(np.ones(1), (4,), (0,))),
    "windows": lambda: (np.ones((2, 2)), np.lib.stride_tricks.as_strided(np.ones(3), (2, 2), (8, 8))),
    "overlap": overlapping,
    "reversed overlap": lambda: (lambda base: (base, base[::-1]))(np.ones(4)),
    "read-only": lambda: (np.ones(4), read_only()),
    "bytes": lambda: (np.ones(4, np.uint8), b"abcd"),
    "requires grad": lambda: (np.ones(4), requires_grad()),
    "jax-like": lambda: (np.ones(4), unversioned_dlpack()),
    "object": lambda: (np.ones(4, object), np.ones(4, object)),
    "str": lambda: (np.array(["a"] * 4), np.ones(4)),
    "complex": lambda: (np.ones(4, complex), np.ones(4, complex)),
    "big-endian": lambda: (np.ones(4, ">f8"), np.ones(4)),
    "list": lambda: (np.ones(4), [1.0, 2.0, 3.0, 4.0]),
}


def use(comm: isobit.Communicator, what: str) -> tuple[str, str]:
    tensor, out = WRONG[what]() if comm.rank == ODD else (np.ones(4), np.ones(4))
    before = np.asarray(tensor).tobytes()
    try:
        comm.all_reduce(tensor, out)
    except (TypeError, ValueError, isobit.RemoteArgumentError) as error:
        assert np.asarray(tensor).tobytes() == before
        return type(error).__name__, str(error)
    return "nothing", ""


def check(group: Processes, what: str, kind: str, *words: str) -> None:
    for rank, (name, message) in enumerate(results(group, use, what)):
        if rank == ODD:
            assert name == kind, (name, message)
            assert all(word in message for word in words), message
        else:
            assert name == "RemoteArgumentError"
            assert f"rank {ODD} failed in all_reduce: {kind}: " in message


def around(comm: isobit.Communicator, count: int) -> bool:
    """A broadcast of so many bytes; the sender's are pages that were never written to, but for the last bytes."""
    tensor = np.zeros(count, np.uint8)
    if comm.rank == 0:
        tensor[-3:] = [1, 2, 3]
    comm.broadcast(tensor)
    return tensor[-3:].tolist() == [1, 2, 3] and not tensor[:: 1 << 20][:-1].any()


def test_item_11_more_than_2_to_the_31_elements_arrive() -> None:
    group = Processes(2)
    assert results(group, around, 2**31 + 1) == [True, True]
    group.close()


@pytest.mark.parametrize("count", [base + more for base in (2**31, 2**32) for more in (-1, 0, 1)])
def test_item_11_sizes_around_2_to_the_31_and_32_are_counted_right(count: int) -> None:
    first = isobit.memory_group(2)[0]
    for dtype, size in (("u8", 1), ("f64", 8)):
        told = first.explain("all_reduce", count, dtype)
        assert (told.bytes_sent, told.bytes_received) == (count * size, count * size) or count % 2
        assert abs(told.bytes_sent - count * size) <= size


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


@pytest.mark.parametrize("what", ["stride 0", "windows", "overlap", "reversed overlap"])
def test_item_13_an_out_that_shares_memory_is_a_value_error_before_anything_is_sent(
    group: Processes, what: str
) -> None:
    check(group, what, "ValueError", "overlaps tensor" if "overlap" in what else "share memory")


@pytest.mark.parametrize("what", ["read-only", "bytes", "requires grad", "jax-like"])
def test_item_14_an_out_that_may_not_be_written_is_a_type_error(group: Processes, what: str) -> None:
    check(group, what, "TypeError", "requires grad" if what == "requires grad" else "read-only")


@pytest.mark.parametrize("what", ["object", "str", "complex", "big-endian"])
def test_item_15_an_unsupported_dtype_is_a_type_error_that_lists_the_supported_ones(
    group: Processes, what: str
) -> None:
    check(group, what, "TypeError", "supported, in little-endian byte order: f8e4m3fn, f8e5m2, f16, bf16, f32")


def test_item_15_a_list_of_numbers_is_a_type_error(group: Processes) -> None:
    check(group, "list", "TypeError", "must be an array")


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


def test_item_19_arrays_of_a_call_in_progress_can_not_be_resized_and_are_kept() -> None:
    first, second = isobit.memory_group(2, timeout=60)
    numbers, raw = np.ones(1000), bytearray(b"\1" * 8)
    works = [first.all_reduce(numbers, async_op=True), first.all_reduce(raw, op="max", async_op=True)]
    with pytest.raises(ValueError, match="resize"):
        numbers.resize(2000)
    with pytest.raises(BufferError):
        raw.extend(b"more")
    kept = first.all_reduce(np.full(1000, 2.0), async_op=True)
    filler = [np.full(1000, -1.0) for _ in range(100)]
    others = [second.all_reduce(np.ones(1000), async_op=True), second.all_reduce(bytearray(8), op="max", async_op=True)]
    others.append(second.all_reduce(np.ones(1000), async_op=True))
    assert np.array_equal(kept.wait(), np.full(1000, 3.0))
    assert np.array_equal(works[0].wait(), np.full(1000, 2.0))
    assert works[1].wait() == b"\1" * 8
    for work in others:
        work.wait()
    del filler
    raw.extend(b"more")
    assert len(raw) == 12
