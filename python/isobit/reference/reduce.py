"""Reductions as a whole: what each rank contributes, and what everybody computes from that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import exact, tree
from .contract import Contract
from .cover import cover
from .dtype import Bits, as_bits
from .leaves import LeafMap
from .node import Interval, Node, root
from .op import Order

Tensor = bytes | bytearray | memoryview | NDArray[Any]


@dataclass(frozen=True)
class Content:
    """What a contribution is: the node of ``leaves``, or the exact sum of as many leaves."""

    leaves: Interval | int

    def __str__(self) -> str:
        if isinstance(self.leaves, int):
            return f"wide {self.leaves}"
        first, end = self.leaves
        return f"leaf {first}" if end - first == 1 else f"node {first}..{end}"


@dataclass(frozen=True)
class Contribution:
    """One part of a rank's contributions, as it travels: a leaf raw, all else in its lossless form."""

    content: Content
    payload: bytes


def reduce(contract: Contract, leaves: Sequence[Tensor]) -> NDArray[Any]:
    """The result of reducing ``leaves``, in leaf order: what every rank of every world must get.

    Leaves are bytes or arrays of one element size and shape; the result has that shape, in the
    result type's numpy form (raw bits where numpy has no such type).
    """
    if len(leaves) != contract.leaves:
        raise ValueError(f"the contract has {contract.leaves} leaves, not {len(leaves)}")
    tensors = [as_bits(leaf, contract.dtype_in) for leaf in leaves]
    shape = tensors[0].shape
    if any(tensor.shape != shape for tensor in tensors):
        raise ValueError(f"leaves differ in shape: {sorted({tensor.shape for tensor in tensors})}")
    flat = [tensor.reshape(-1) for tensor in tensors]
    if contract.order is Order.EXACT:
        result = exact.finish(contract, exact.add([exact.of_leaf(leaf, contract.dtype_in) for leaf in flat]))
    else:
        tree.check_arithmetic()
        top = tree.value(contract, root(contract.leaves), flat.__getitem__, {})
        result = tree.finish(contract, top)
    return result.view(contract.dtype_out.native).reshape(shape)


def contents(contract: Contract, leaf_map: LeafMap, rank: int) -> list[Content]:
    """What ``rank`` contributes, in order. Everybody can compute it of everybody."""
    owned = leaf_map.ranks[rank]
    if contract.order is Order.TREE:
        return [Content(interval) for interval in cover(contract.leaves, owned)]
    if len(owned) * contract.dtype_in.size <= exact.wide_bytes(contract.dtype_in):
        return [Content((leaf, leaf + 1)) for leaf in sorted(owned)]
    return [Content(len(owned))]


def contribute(contract: Contract, leaf_map: LeafMap, rank: int, leaves: Mapping[int, Tensor]) -> list[Contribution]:
    """The contributions of ``rank``, computed from the leaves that it owns."""
    owned = {leaf: as_bits(leaves[leaf], contract.dtype_in).reshape(-1) for leaf in leaf_map.ranks[rank]}

    def payload(content: Content) -> bytes:
        if isinstance(content.leaves, int):
            sums = exact.add([exact.of_leaf(leaf, contract.dtype_in) for leaf in owned.values()])
            return exact.encode(sums, contract.dtype_in)
        first, end = content.leaves
        if end - first == 1:
            return owned[first].tobytes()
        tree.check_arithmetic()
        height = (end - first - 1).bit_length()
        node = Node(height, first >> height)
        return tree.value(contract, node, owned.__getitem__, {}).tobytes()

    return [Contribution(content, payload(content)) for content in contents(contract, leaf_map, rank)]


def finish(contract: Contract, contributions: Sequence[Contribution]) -> NDArray[Any]:
    """The result from the contributions of all ranks, in any order; a flat array."""
    if contract.order is Order.EXACT:
        parts = [
            exact.decode(part.payload, contract.dtype_in)
            if isinstance(part.content.leaves, int)
            else exact.of_leaf(as_bits(part.payload, contract.dtype_in), contract.dtype_in)
            for part in contributions
        ]
        return exact.finish(contract, exact.add(parts)).view(contract.dtype_out.native)
    assert contract.dtype_acc is not None, "the tree order has an accumulator"
    known: dict[Interval, Bits] = {}
    for part in contributions:
        assert not isinstance(part.content.leaves, int), "the wide form belongs to the exact order"
        first, end = part.content.leaves
        if end - first == 1:
            known[first, end] = tree.load(contract, as_bits(part.payload, contract.dtype_in))
        else:
            known[first, end] = as_bits(part.payload, contract.dtype_acc)

    def missing(leaf: int) -> Bits:
        raise ValueError(f"no contribution holds leaf {leaf}")

    tree.check_arithmetic()
    top = tree.value(contract, root(contract.leaves), missing, known)
    return np.asarray(tree.finish(contract, top)).view(contract.dtype_out.native)
