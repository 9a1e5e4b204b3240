"""Which leaves a rank owns: sets of leaf numbers, and partitions of them over ranks."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import xxhash

from .node import Interval


class LeafMapError(ValueError):
    """Why an ownership is none; ``kind`` is the word that golden vectors and Rust use."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def runs(leaves: Iterable[int]) -> list[Interval]:
    """A set of leaves as its maximal runs ``first..end``, ascending."""
    members = set(leaves)
    firsts = sorted(leaf for leaf in members if leaf - 1 not in members)
    ends = sorted(leaf + 1 for leaf in members if leaf + 1 not in members)
    return list(zip(firsts, ends, strict=True))


@dataclass(frozen=True)
class LeafMap:
    """A partition of ``0..leaves`` over the ranks, some of which may own none."""

    leaves: int
    ranks: tuple[frozenset[int], ...]

    @classmethod
    def of(cls, leaves: int, ranks: Sequence[Iterable[int]]) -> LeafMap:
        """The given sets, one a rank; an error unless each leaf has exactly one owner."""
        owned = [frozenset(rank) for rank in ranks]
        for leaf in sorted(frozenset(range(leaves)).union(*owned)):
            owners = sum(leaf in rank for rank in owned)
            if owners > 1:
                raise LeafMapError("OwnedTwice", f"leaf {leaf} is owned by {owners} ranks")
            if leaf >= leaves:
                raise LeafMapError("OutOfRange", f"leaf {leaf} does not exist: there are {leaves}")
            if owners == 0:
                raise LeafMapError("Unowned", f"leaf {leaf} of {leaves} is owned by no rank")
        return cls(leaves, tuple(owned))

    @classmethod
    def even(cls, leaves: int, world_size: int) -> LeafMap:
        """Contiguous runs in rank order whose lengths differ by one at most, the longer ones first."""
        lengths = [leaves // world_size + (rank < leaves % world_size) for rank in range(world_size)]
        starts = [sum(lengths[:rank]) for rank in range(world_size)]
        return cls.of(leaves, [range(start, start + n) for start, n in zip(starts, lengths, strict=True)])

    def digest(self) -> int:
        """XXH3-64 of leaves, world size, then each rank's number of runs and its runs, all u32."""
        words = [self.leaves, len(self.ranks)]
        for rank in self.ranks:
            own = runs(rank)
            words.append(len(own))
            words.extend(word for run in own for word in run)
        return xxhash.xxh3_64_intdigest(struct.pack(f"<{len(words)}I", *words))
