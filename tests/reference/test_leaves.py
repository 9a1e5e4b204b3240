"""Leaf sets, ownerships, nodes and covers."""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from itertools import pairwise

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from isobit.reference.cover import cover
from isobit.reference.leaves import LeafMap, LeafMapError, runs
from isobit.reference.node import Node, nodes, root

LEAF_COUNTS = (1, 2, 3, 5, 7, 8, 12, 24, 48, 60, 64, 97)
SETS = st.integers(1, 100).flatmap(lambda count: st.tuples(st.just(count), st.frozensets(st.integers(0, count - 1))))


def halves(first: int, end: int) -> tuple[int, int, int]:
    """The other formulation: an interval splits at the largest power of two below its length."""
    return first, first + (1 << (end - first - 1).bit_length() - 1), end


def cover_by_splitting(first: int, end: int, owned: frozenset[int]) -> list[tuple[int, int]]:
    inside = [leaf in owned for leaf in range(first, end)]
    if all(inside):
        return [(first, end)]
    if not any(inside):
        return []
    _, middle, _ = halves(first, end)
    return cover_by_splitting(first, middle, owned) + cover_by_splitting(middle, end, owned)


@pytest.mark.parametrize("leaves", range(1, 70))
def test_splitting_intervals_gives_the_nodes_of_the_definition(leaves: int) -> None:
    found, left = set(), [(0, leaves)]
    while left:
        first, end = left.pop()
        found.add((first, end))
        if end - first > 1:
            _, middle, _ = halves(first, end)
            left += [(first, middle), (middle, end)]
    assert found == {node.interval(leaves) for node in nodes(leaves)}


def test_a_node_covers_what_the_definition_says() -> None:
    assert root(5) == Node(3, 0)
    assert Node(1, 1).interval(5) == (2, 4)
    assert Node(2, 1).interval(5) == (4, 5)
    assert Node(2, 1).right.is_empty(5)
    assert Node(2, 1).left.parent == Node(2, 1) == Node(2, 1).right.parent


@given(SETS)
def test_covers_are_those_of_splitting_intervals(drawn: tuple[int, frozenset[int]]) -> None:
    leaves, owned = drawn
    assert cover(leaves, owned) == cover_by_splitting(0, leaves, owned)


@given(SETS)
def test_a_cover_tiles_its_set(drawn: tuple[int, frozenset[int]]) -> None:
    leaves, owned = drawn
    assert [leaf for first, end in cover(leaves, owned) for leaf in range(first, end)] == sorted(owned)


def test_a_run_has_a_small_cover() -> None:
    for leaves in LEAF_COUNTS:
        for first in range(leaves):
            for end in range(first + 1, leaves + 1):
                bound = 2 * math.ceil(math.log2((end - first) / 2 + 1))
                assert len(cover(leaves, frozenset(range(first, end)))) <= bound


@pytest.mark.parametrize(
    ("leaves", "world_size", "mean"),
    [(24, 2, "2"), (24, 3, "1"), (64, 3, "11/3"), (64, 5, "17/5")],
)
def test_mean_covers_are_the_documented_ones(leaves: int, world_size: int, mean: str) -> None:
    sizes = [len(cover(leaves, rank)) for rank in LeafMap.even(leaves, world_size).ranks]
    assert Fraction(sum(sizes), world_size) == Fraction(mean)


@given(st.frozensets(st.integers(0, 50)))
def test_runs_are_maximal_and_hold_the_set(owned: frozenset[int]) -> None:
    made = runs(owned)
    assert {leaf for first, end in made for leaf in range(first, end)} == owned
    assert all(end < after for (_, end), (after, _) in pairwise(made))


def test_even_splits_put_the_longer_runs_first() -> None:
    assert [runs(rank) for rank in LeafMap.even(8, 3).ranks] == [[(0, 3)], [(3, 6)], [(6, 8)]]
    assert [len(rank) for rank in LeafMap.even(2, 4).ranks] == [1, 1, 0, 0]


def test_the_digest_is_the_documented_one() -> None:
    owners = LeafMap.of(5, [[0, 1, 4], [], [2, 3]])
    words = [5, 3, 2, 0, 2, 4, 5, 0, 1, 2, 4]
    assert owners.digest() == xxhash.xxh3_64_intdigest(struct.pack("<11I", *words))
    assert owners.digest() != LeafMap.of(5, [[0, 1, 4], [2, 3], []]).digest()


@pytest.mark.parametrize(
    ("kind", "leaves", "ranks"),
    [
        ("Unowned", 3, [[0], [2]]),
        ("Unowned", 3, [[0], [1]]),
        ("OwnedTwice", 2, [[0, 1], [1]]),
        ("OutOfRange", 2, [[0, 1], [2]]),
    ],
)
def test_an_ownership_that_is_no_partition_is_an_error(kind: str, leaves: int, ranks: list[list[int]]) -> None:
    with pytest.raises(LeafMapError) as caught:
        LeafMap.of(leaves, ranks)
    assert caught.value.kind == kind
