"""Writes the golden vectors: ``python -m isobit.reference.vectors DIR``.

They are a function of this package alone: two runs write the same bytes. ``README.md`` in their
directory says how to read them.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from . import grids
from .contract import ContractError, contract
from .cover import cover
from .dtype import Dtype
from .grids import LEAF_COUNTS, Json, random_words
from .leaves import LeafMap, LeafMapError, runs
from .op import Order, ReduceOp
from .wire import Channel, Collective, Descriptor, Header, HeaderError, checksum, decode, shape_digest


def _name(dtype: Dtype | None) -> str | None:
    return None if dtype is None else dtype.value


def contracts() -> Iterator[Json]:
    """Specifications with their encoding and digest, or the kind of their error."""

    def entry(op: ReduceOp, order: Order, leaves: int, dtype: Dtype, *rest: Any) -> Json:
        accumulate, out_dtype, divisor = rest
        asked = {
            "name": f"{order.value} {op.value} of {leaves} {dtype.value}, accumulate {_name(accumulate)},"
            f" out {_name(out_dtype)}, divisor {divisor}",
            "op": op.value,
            "order": order.value,
            "leaves": leaves,
            "dtype": dtype.value,
            "accumulate": _name(accumulate),
            "out_dtype": _name(out_dtype),
            "divisor": divisor,
        }
        try:
            made = contract(op, leaves, dtype, order, accumulate, out_dtype, divisor)
        except ContractError as error:
            return asked | {"error": error.kind}
        return asked | {"encoding": made.encode().hex(), "digest": f"{made.digest():016x}"}

    for op, order, dtype in product(ReduceOp, Order, Dtype):
        yield entry(op, order, 8, dtype, None, None, None)
    for dtype, accumulate in product(Dtype, Dtype):
        yield entry(ReduceOp.SUM, Order.TREE, 5, dtype, accumulate, None, None)
    for dtype, accumulate in product(Dtype, (Dtype.F32, Dtype.F64, Dtype.BF16)):
        yield entry(ReduceOp.SUM, Order.EXACT, 5, dtype, accumulate, None, None)
    for dtype, out in product(Dtype, Dtype):
        yield entry(ReduceOp.MAX, Order.TREE, 3, dtype, None, out, None)
    for accumulate in (Dtype.F32, Dtype.F64, Dtype.F16):
        yield entry(ReduceOp.MIN, Order.EXACT, 3, Dtype.BF16, accumulate, None, None)
    for leaves, divisor in product((0, 1, 7, (1 << 24) + 1, (1 << 32) - 1), (None, 0, 1, 3)):
        for op, dtype in product((ReduceOp.MEAN, ReduceOp.SUM), (Dtype.BF16, Dtype.F32)):
            yield entry(op, Order.TREE, leaves, dtype, None, None, divisor)
    for digits, order in product((24, 25, 53, 54, 64), Order):
        for divisor in ((1 << digits) - 1, 1 << (digits - 1), (1 << digits) - 2):
            yield entry(ReduceOp.MEAN, order, 4, Dtype.F16, None, Dtype.F32, divisor)
            yield entry(ReduceOp.MEAN, order, 4, Dtype.F64, None, None, divisor)


def covers() -> Iterator[Json]:
    """Sets of leaves, as runs, with their cover."""

    def entry(leaves: int, owned: frozenset[int], what: str) -> Json:
        nodes = cover(leaves, owned)
        return {"name": f"{what} of {leaves}", "leaves": leaves, "runs": runs(owned), "nodes": nodes}

    for leaves in range(1, 8):
        for first in range(leaves):
            for end in range(first + 1, leaves + 1):
                yield entry(leaves, frozenset(range(first, end)), f"{first}..{end}")
    for leaves in LEAF_COUNTS:
        yield entry(leaves, frozenset(), "nothing")
        words = random_words(f"cover {leaves}")
        yield entry(leaves, frozenset(range(leaves)) - {leaves // 2}, "all but the middle one")
        yield entry(leaves, frozenset(range(0, leaves, 2)), "every other one")
        for draw in range(3):
            keep = [next(words) % 4 > 0 for _ in range(leaves)]
            yield entry(leaves, frozenset(leaf for leaf in range(leaves) if keep[leaf]), f"draw {draw}")
        for world_size in (2, 3, 5, 8):
            for rank, owned in enumerate(LeafMap.even(leaves, world_size).ranks):
                if leaves >= 24:
                    yield entry(leaves, owned, f"rank {rank} of {world_size}")


def leaf_maps() -> Iterator[Json]:
    """Ownerships, as runs a rank, with their digest, or the kind of their error."""
    for leaves in LEAF_COUNTS:
        for world_size in (1, 2, 3, 8):
            even = LeafMap.even(leaves, world_size)
            yield {
                "name": f"{leaves} leaves evenly over {world_size} ranks",
                "leaves": leaves,
                "ranks": [runs(rank) for rank in even.ranks],
                "even": True,
                "digest": f"{even.digest():016x}",
            }
    drawn: list[tuple[str, int, list[list[int]]]] = [
        ("one rank owns all", 6, [[], [0, 1, 2, 3, 4, 5], []]),
        ("interleaved", 7, [[0, 2, 4, 6], [1, 3, 5]]),
        ("backwards", 4, [[2, 3], [1], [0]]),
        ("leaf 2 has no owner", 4, [[0, 1], [3]]),
        ("the last leaf has no owner", 4, [[0, 1], [2]]),
        ("leaf 1 has two owners", 3, [[0, 1], [1, 2]]),
        ("leaf 3 does not exist", 3, [[0, 1], [2, 3]]),
    ]
    for name, leaves, ranks in drawn:
        entry: Json = {"name": name, "leaves": leaves, "ranks": [runs(rank) for rank in ranks], "even": False}
        try:
            yield entry | {"digest": f"{LeafMap.of(leaves, ranks).digest():016x}"}
        except LeafMapError as error:
            yield entry | {"error": error.kind}


def headers() -> Iterator[Json]:
    """Headers with their 128 bytes; bytes that are no header, with the kind of error."""
    mean = contract(ReduceOp.MEAN, 64, Dtype.BF16, out_dtype=Dtype.F32)
    layout = LeafMap.even(64, 3).digest()
    words = random_words("headers")
    plain = Descriptor(Collective.BARRIER, None, Dtype.U8, None, 0, shape_digest([0]), 0)
    rich = Descriptor(Collective.ALL_REDUCE, mean, Dtype.BF16, None, 6, shape_digest([2, 3]), layout)
    for kind in Collective:
        channel = Channel.POINT_TO_POINT if kind is Collective.POINT_TO_POINT else Channel.COLLECTIVE
        reduces = kind in (Collective.ALL_REDUCE, Collective.REDUCE, Collective.REDUCE_SCATTER)
        rooted = kind in (Collective.REDUCE, Collective.GATHER, Collective.SCATTER, Collective.BROADCAST)
        shape = [next(words) % 9 for _ in range(kind.code % 4)]
        payload = struct.pack("<Q", next(words))[: kind.code - 1]
        count = int(np.prod(shape)) if shape else 1
        what = Descriptor(
            collective=kind,
            contract=mean if reduces else None,
            dtype=Dtype.BF16 if reduces else Dtype.F64,
            root=kind.code if rooted else None,
            count=count,
            shape=shape_digest(shape),
            layout=layout if reduces else 0,
        )
        header = Header(
            group=next(words),
            incarnation=next(words),
            epoch=next(words) % (1 << 32),
            source=next(words) % 1000,
            destination=next(words) % 1000,
            channel=channel,
            sequence=next(words),
            message=next(words) % (1 << 32),
            tag=next(words) if channel is Channel.POINT_TO_POINT else 0,
            descriptor=what,
            payload_bytes=len(payload),
            payload_checksum=checksum(payload),
        )
        yield {"name": f"a header of {kind.value}", **_fields(header, shape, payload)}
    edge = (1 << 64) - 1
    last = Header(0, edge, (1 << 32) - 1, 0, 1, Channel.COLLECTIVE, edge, 0, 0, plain, 0, checksum(b""))
    yield {"name": "the largest values of some fields", **_fields(last, [0], b"")}
    good = replace(last, descriptor=rich).encode()
    yield _broken("another magic", good, 0, 0x58)
    yield _broken("another wire version", good, 4, 2)
    yield _broken("a bit flipped on the way", good, 40, good[40] ^ 1, reseal=False)
    yield _broken("a bit of the checksum flipped on the way", good, 127, good[127] ^ 0x80, reseal=False)
    yield _broken("no such collective", good, 5, 99)
    yield _broken("no such channel", good, 6, 2)
    yield _broken("no such dtype", good, 7, 0)
    yield _broken("no such operation in the contract", good, 64, 77)
    yield _broken("a contract with a bit set where zeros belong", good, 70, 1)


def _fields(header: Header, shape: Sequence[int], payload: bytes) -> Json:
    what = header.descriptor
    assert decode(header.encode()) == header
    return {
        "group": header.group,
        "incarnation": header.incarnation,
        "epoch": header.epoch,
        "source": header.source,
        "destination": header.destination,
        "channel": header.channel.value,
        "sequence": header.sequence,
        "message": header.message,
        "tag": header.tag,
        "collective": what.collective.value,
        "contract": None if what.contract is None else what.contract.encode().hex(),
        "dtype": what.dtype.value,
        "root": what.root,
        "count": what.count,
        "shape": list(shape),
        "shape_digest": f"{what.shape:016x}",
        "layout": f"{what.layout:016x}",
        "payload": payload.hex(),
        "payload_checksum": f"{header.payload_checksum:016x}",
        "bytes": header.encode().hex(),
    }


def _broken(name: str, good: bytes, at: int, byte: int, *, reseal: bool = True) -> Json:
    damaged = good[:at] + bytes([byte]) + good[at + 1 :]
    if reseal:
        damaged = damaged[:120] + struct.pack("<Q", checksum(damaged[:120]))
    try:
        decode(damaged)
    except HeaderError as error:
        return {"name": name, "bytes": damaged.hex(), "error": error.kind}
    raise AssertionError(f"{name}: decoded all the same")


FILES: dict[str, Callable[[], Iterator[Json]]] = {
    "contracts.json": contracts,
    "covers.json": covers,
    "leaf_maps.json": leaf_maps,
    "headers.json": headers,
    "conversions.json": grids.conversions,
    "tables.json": grids.tables,
    "pools.json": grids.pools,
    "grid.json": grids.grid,
    "reductions.json": grids.reductions,
    "contributions.json": grids.contributions,
}


def text(file: str) -> str:
    """The text of one file: a JSON list, one vector a line."""
    entries = list(FILES[file]())
    names = [entry["name"] for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    assert not twice, f"{file}: {twice} must differ"
    return "[\n" + ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in entries) + "\n]\n"


def main(directory: str) -> None:
    """Writes every file into ``directory``."""
    for file in FILES:
        (Path(directory) / file).write_text(text(file), encoding="ascii", newline="\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m isobit.reference.vectors DIR")
    main(sys.argv[1])
