"""Nodes of the left-full dyadic tree, straight from its definition.

Node ``(j, k)`` of the tree over ``L`` leaves covers the leaves ``[k * 2^j, min((k + 1) * 2^j, L))``.
Its halves are ``(j - 1, 2k)`` and ``(j - 1, 2k + 1)``; the right one may be empty.
"""

from __future__ import annotations

from typing import NamedTuple

Interval = tuple[int, int]
"""The leaves ``first..end``."""


class Node(NamedTuple):
    """A node by its height and its number at that height."""

    j: int
    k: int

    def interval(self, leaves: int) -> Interval:
        """The leaves that it covers; empty (``first == end``) beyond the last leaf."""
        first = min(self.k * 2**self.j, leaves)
        return first, min((self.k + 1) * 2**self.j, leaves)

    def is_empty(self, leaves: int) -> bool:
        first, end = self.interval(leaves)
        return first == end

    @property
    def left(self) -> Node:
        return Node(self.j - 1, 2 * self.k)

    @property
    def right(self) -> Node:
        return Node(self.j - 1, 2 * self.k + 1)

    @property
    def parent(self) -> Node:
        return Node(self.j + 1, self.k // 2)


def root(leaves: int) -> Node:
    """The lowest node that covers all leaves."""
    j = 0
    while 2**j < leaves:
        j += 1
    return Node(j, 0)


def nodes(leaves: int) -> list[Node]:
    """Every node of the tree that covers a leaf, those whose right half is empty included."""
    return [Node(j, k) for j in range(root(leaves).j + 1) for k in range(-(-leaves // 2**j))]
