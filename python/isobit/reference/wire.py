"""The wire: descriptors, shape digests, and the 128-byte header of every message."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import xxhash

from .contract import CONTRACT_BYTES, Contract
from .dtype import Dtype

HEADER_BYTES = 128
WIRE_VERSION = 1
MAGIC = b"ISOB"
NO_ROOT = 0xFFFFFFFF

# In the order of the table in the Rust header's documentation; the checksum of all this follows.
_LAYOUT = struct.Struct(f"<4sBBBBQQIIIIQIIQ{CONTRACT_BYTES}sQQQQ")
_CHECKSUM = struct.Struct("<Q")


class Collective(Enum):
    """The kind of an operation."""

    ALL_REDUCE = "all_reduce"
    REDUCE = "reduce"
    REDUCE_SCATTER = "reduce_scatter"
    ALL_GATHER = "all_gather"
    GATHER = "gather"
    SCATTER = "scatter"
    BROADCAST = "broadcast"
    ALL_TO_ALL = "all_to_all"
    BARRIER = "barrier"
    POINT_TO_POINT = "send/recv"

    @property
    def code(self) -> int:
        """The code on the wire: all_reduce is 1, and so on."""
        return list(Collective).index(self) + 1

    @classmethod
    def from_code(cls, code: int) -> Collective | None:
        return next((kind for kind in cls if kind.code == code), None)


class Channel(Enum):
    """Which of a pair's two streams a message belongs to; the value is the wire code."""

    COLLECTIVE = 0
    POINT_TO_POINT = 1


@dataclass(frozen=True)
class Descriptor:
    """What an operation is, in the words of its caller."""

    collective: Collective
    contract: Contract | None
    """The contract, of reductions."""
    dtype: Dtype
    root: int | None
    count: int
    """The number of elements on which both sides must agree."""
    shape: int
    """The digest of the tensor's shape."""
    layout: int
    """The digest of who owns or gets how much; 0 where there is nothing to agree on."""


@dataclass(frozen=True)
class Header:
    """What travels before every payload."""

    group: int
    incarnation: int
    epoch: int
    source: int
    destination: int
    channel: Channel
    sequence: int
    message: int
    tag: int
    descriptor: Descriptor
    payload_bytes: int
    payload_checksum: int

    def encode(self) -> bytes:
        what = self.descriptor
        head = _LAYOUT.pack(
            MAGIC,
            WIRE_VERSION,
            what.collective.code,
            self.channel.value,
            what.dtype.code,
            self.group,
            self.incarnation,
            self.epoch,
            self.source,
            self.destination,
            NO_ROOT if what.root is None else what.root,
            self.sequence,
            self.message,
            self.payload_bytes,
            self.payload_checksum,
            bytes(CONTRACT_BYTES) if what.contract is None else what.contract.encode(),
            what.count,
            what.shape,
            what.layout,
            self.tag,
        )
        return head + _CHECKSUM.pack(checksum(head))


class HeaderError(ValueError):
    """Why bytes are no header; ``kind`` is the word that golden vectors and Rust use."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def decode(message: bytes) -> Header:
    """Reads a header: first whether it is one, then whether it is intact, then what it says."""
    if len(message) != HEADER_BYTES:
        raise HeaderError("Length", f"a header has {HEADER_BYTES} bytes, not {len(message)}")
    head = message[: _LAYOUT.size]
    (found,) = _CHECKSUM.unpack(message[_LAYOUT.size :])
    (
        magic,
        version,
        collective_code,
        channel_code,
        dtype_code,
        group,
        incarnation,
        epoch,
        source,
        destination,
        root,
        sequence,
        number,
        payload_bytes,
        payload_checksum,
        encoding,
        count,
        shape,
        layout,
        tag,
    ) = _LAYOUT.unpack(head)
    if magic != MAGIC:
        raise HeaderError("Magic", f"not an isobit message: magic {magic!r}")
    if version != WIRE_VERSION:
        raise HeaderError("Version", f"wire version {version}, this side speaks {WIRE_VERSION}")
    if checksum(head) != found:
        raise HeaderError("Checksum", f"header checksum {checksum(head):016x} where {found:016x} was sent")
    collective, dtype = Collective.from_code(collective_code), Dtype.from_code(dtype_code)
    contract = Contract.decode(encoding) if any(encoding) else None
    if collective is None:
        raise HeaderError("Field", f"header field 'collective' has no meaning: {collective_code}")
    if channel_code not in (channel.value for channel in Channel):
        raise HeaderError("Field", f"header field 'channel' has no meaning: {channel_code}")
    if dtype is None:
        raise HeaderError("Field", f"header field 'dtype' has no meaning: {dtype_code}")
    if contract is None and any(encoding):
        raise HeaderError("Field", f"header field 'contract' has no meaning: {encoding.hex()}")
    return Header(
        group=group,
        incarnation=incarnation,
        epoch=epoch,
        source=source,
        destination=destination,
        channel=Channel(channel_code),
        sequence=sequence,
        message=number,
        tag=tag,
        descriptor=Descriptor(collective, contract, dtype, None if root == NO_ROOT else root, count, shape, layout),
        payload_bytes=payload_bytes,
        payload_checksum=payload_checksum,
    )


def checksum(payload: bytes) -> int:
    """XXH3-64 with seed 0: of payloads, of headers, of everything."""
    return xxhash.xxh3_64_intdigest(payload)


def shape_digest(shape: Sequence[int]) -> int:
    """XXH3-64 of the dimensions as u64."""
    return checksum(struct.pack(f"<{len(shape)}Q", *shape))


def counts_digest(counts: Sequence[int]) -> int:
    """The layout digest of counts, one a rank: XXH3-64 of them as u64, 0 for none."""
    return checksum(struct.pack(f"<{len(counts)}Q", *counts)) if counts else 0
