"""Covers: the few nodes in which a set of leaves can be combined before the rest is known."""

from __future__ import annotations

from .node import Interval, Node, nodes, root


def cover(leaves: int, owned: frozenset[int]) -> list[Interval]:
    """The maximal nodes inside ``owned``, ascending, each named by the leaves that it covers.

    A node whose right half is empty covers the same leaves as its left half, and has its value,
    so the interval names both.
    """

    def inside(node: Node) -> bool:
        return owned.issuperset(range(*node.interval(leaves)))

    top = root(leaves)
    maximal = [node for node in nodes(leaves) if inside(node) and (node == top or not inside(node.parent))]
    return sorted(node.interval(leaves) for node in maximal)
