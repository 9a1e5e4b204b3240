"""The header of every message, byte by byte."""

from __future__ import annotations

import struct

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from isobit.reference.contract import contract
from isobit.reference.dtype import Dtype
from isobit.reference.op import ReduceOp
from isobit.reference.wire import (
    HEADER_BYTES,
    Channel,
    Collective,
    Descriptor,
    Header,
    HeaderError,
    checksum,
    counts_digest,
    decode,
    shape_digest,
)

U32, U64 = st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 64) - 1)
SUM = contract(ReduceOp.SUM, 8, Dtype.F32)
DESCRIPTORS = st.builds(
    Descriptor,
    collective=st.sampled_from(Collective),
    contract=st.sampled_from([None, SUM]),
    dtype=st.sampled_from(Dtype),
    root=st.one_of(st.none(), st.integers(0, (1 << 32) - 2)),
    count=U64,
    shape=U64,
    layout=U64,
)
HEADERS = st.builds(
    Header,
    group=U64,
    incarnation=U64,
    epoch=U32,
    source=U32,
    destination=U32,
    channel=st.sampled_from(Channel),
    sequence=U64,
    message=U32,
    tag=U64,
    descriptor=DESCRIPTORS,
    payload_bytes=U32,
    payload_checksum=U64,
)


def test_each_field_stands_where_the_table_says() -> None:
    what = Descriptor(Collective.REDUCE, SUM, Dtype.F32, 0x11, 0x12, 0x13, 0x14)
    header = Header(1, 2, 3, 4, 5, Channel.POINT_TO_POINT, 6, 7, 8, what, 9, 10)
    message = header.encode()
    words = {8: 1, 16: 2, 40: 6, 56: 10, 88: 0x12, 96: 0x13, 104: 0x14, 112: 8}
    halves = {24: 3, 28: 4, 32: 5, 36: 0x11, 48: 7, 52: 9}
    assert len(message) == HEADER_BYTES
    assert message[:8] == b"ISOB" + bytes([1, 2, 1, 5])
    assert {at: struct.unpack_from("<Q", message, at)[0] for at in words} == words
    assert {at: struct.unpack_from("<I", message, at)[0] for at in halves} == halves
    assert message[64:88] == SUM.encode()
    assert struct.unpack_from("<Q", message, 120)[0] == xxhash.xxh3_64_intdigest(message[:120])


def test_nothing_is_said_by_the_documented_nothing() -> None:
    what = Descriptor(Collective.BARRIER, None, Dtype.U8, None, 0, 0, 0)
    message = Header(0, 0, 0, 0, 0, Channel.COLLECTIVE, 0, 0, 0, what, 0, checksum(b"")).encode()
    assert message[36:40] == b"\xff" * 4
    assert message[64:88] == bytes(24)


@given(HEADERS)
def test_every_header_survives_its_encoding(header: Header) -> None:
    assert decode(header.encode()) == header


@given(header=HEADERS, at=st.integers(0, HEADER_BYTES * 8 - 1))
def test_every_flipped_bit_is_found(header: Header, at: int) -> None:
    message = bytearray(header.encode())
    message[at // 8] ^= 1 << at % 8
    with pytest.raises(HeaderError):
        decode(bytes(message))


def test_a_header_of_another_length_is_refused() -> None:
    with pytest.raises(HeaderError, match="128"):
        decode(bytes(127))


def test_collectives_have_the_documented_codes() -> None:
    assert [kind.code for kind in Collective] == list(range(1, 11))
    assert Collective.from_code(11) is None


def test_a_shape_is_digested_as_64_bit_words() -> None:
    assert shape_digest([2, 3]) == xxhash.xxh3_64_intdigest(struct.pack("<QQ", 2, 3))
    assert shape_digest([]) == xxhash.xxh3_64_intdigest(b"")
    assert len({shape_digest(shape) for shape in ([6], [2, 3], [3, 2], [6, 1])}) == 4


def test_counts_are_digested_as_64_bit_words_and_none_as_0() -> None:
    assert counts_digest([20, 10]) == xxhash.xxh3_64_intdigest(struct.pack("<QQ", 20, 10))
    assert counts_digest([]) == 0
