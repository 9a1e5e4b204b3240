"""Objects travel without pickle: the same value on every rank, and no byte of a peer that is trusted unseen."""

from __future__ import annotations

import math
import struct
from typing import Any

import isobit
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isobit.codec import BYTES_MAX, DEPTH_MAX, decode, encode
from ranks import Group, Threads, results

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
)


def same(a: Any, b: Any) -> bool:
    """Whether two values are the same, down to the bits of floats."""
    if isinstance(a, float) and isinstance(b, float):
        return struct.pack("<d", a) == struct.pack("<d", b)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    return type(a) is type(b) and bool(a == b)


def depth(value: Any) -> int:
    if isinstance(value, list | dict):
        return 1 + max(map(depth, value.values() if isinstance(value, dict) else value), default=0)
    return 0


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    if depth(value) <= DEPTH_MAX:
        assert same(decode(encode(value)), value)
        assert encode(value) == encode(decode(encode(value)))
    else:
        with pytest.raises(ValueError, match="too deep"):
            encode(value)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=64))
def test_bytes_that_are_no_value_are_an_error_and_nothing_else(data: bytes) -> None:
    try:
        value = decode(data)
    except ValueError:
        return
    assert same(decode(encode(value)), value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"l\xff\xff\xff\xff\x0f",
        b"s\xff\xff\xff\xff\x7f",
        b"b\x05ab",
        b"l\x08" * 9 + b"N",
        b"d\x02\x01aN\x01aN",
        b"NN",
        b"z",
    ],
)
def test_a_damaged_object_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"object"):
        decode(data)


def test_the_bytes_of_an_object_are_fixed() -> None:
    value: list[Any] = [None, True, -1, 300, 1.5, "é", b"\0", {"k": []}]
    assert encode(value) == bytes.fromhex("6c084e546901ff69022c0166000000000000f83f7302c3a96201006401016b6c00")


@pytest.mark.parametrize("value", [{1: 2}, {1, 2}, 1j, object(), np.float32(1), np.ones(2), [print], type])
def test_what_is_no_object_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError, match=r"may have|must be str"):
        encode(value)


def test_an_object_has_limits() -> None:
    deep: Any = 1
    for _ in range(DEPTH_MAX):
        deep = [deep]
    assert decode(encode(deep)) == deep
    with pytest.raises(ValueError, match="too deep"):
        encode([deep])
    assert len(encode(b"x" * (BYTES_MAX - 4))) == BYTES_MAX
    with pytest.raises(ValueError, match="too long"):
        encode(b"x" * (BYTES_MAX - 3))
    with pytest.raises(ValueError, match="too long"):
        encode(["x" * (BYTES_MAX // 2)] * 3)


def everything(comm: isobit.Communicator) -> None:
    rank, n = comm.rank, comm.world_size
    value = {"rank": rank, "nan": struct.unpack("<d", struct.pack("<Q", 0xFFF8_0000_0000_0123))[0], "raw": b"\0" * rank}
    root = n - 1
    found = comm.broadcast_object(value if rank == root else "ignored", root=root)
    assert found["rank"] == root
    assert struct.pack("<d", found["nan"]) == struct.pack("<Q", 0xFFF8_0000_0000_0123)
    everyone = comm.all_gather_object((rank, "x" * 1000 * rank))
    assert everyone == [[other, "x" * 1000 * other] for other in range(n)]
    at_root = comm.gather_object(rank, root=root)
    assert at_root == (list(range(n)) if rank == root else None)
    assert comm.scatter_object([[other] for other in range(n)] if rank == root else None, root=root) == [rank]
    if n > 1:
        if rank == 0:
            comm.send_object({"to": 1}, 1, tag=7)
        elif rank == 1:
            assert comm.recv_object(0, tag=7) == {"to": 1}
    assert math.copysign(1, comm.broadcast_object(-0.0)) == -1


def test_objects_reach_the_ranks_that_they_are_for(group: Group) -> None:
    results(group, everything)


def wrong(comm: isobit.Communicator) -> None:
    comm.all_gather_object(object() if comm.rank == 1 else 1)


def again(comm: isobit.Communicator) -> Any:
    return comm.all_gather_object(comm.rank)


def test_an_object_that_can_not_travel_is_an_error_on_every_rank_and_the_group_goes_on() -> None:
    group = Threads(3)
    first, second, third = group.outcomes(wrong)
    assert isinstance(second, TypeError)
    for error in (first, third):
        assert isinstance(error, isobit.RemoteArgumentError)
        assert "rank 1 failed in all_gather_object: TypeError" in str(error)
    assert results(group, again) == [[0, 1, 2]] * 3
    group.close()


def announces_too_much(comm: isobit.Communicator) -> None:
    if comm.rank == 0:
        comm.broadcast(np.array([1 << 60], np.uint64))
        comm.broadcast(np.zeros(1, np.uint8))
    else:
        comm.broadcast_object()


def test_a_size_that_a_peer_made_up_allocates_nothing() -> None:
    group = Threads(2)
    liar, victim = group.outcomes(announces_too_much)
    assert isinstance(victim, ValueError)
    assert "announced an object of 1152921504606846976 bytes" in str(victim)
    assert isinstance(liar, isobit.RemoteArgumentError)
    group.close()
