"""How a tensor's first axis splits over the ranks: shapes and counts, checked before anything is sent."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

from isobit.tensors import Array

Shape = tuple[int, ...]


class Blocks:
    """The rows of each rank, as `counts` of rows or all alike.

    >>> blocks = Blocks.split(4, (8, 3), None)
    >>> blocks.shape_of(1), blocks.total, blocks.elements
    ((2, 3), (8, 3), None)
    >>> Blocks.split(2, (5, 3), [1, 4]).elements
    [3, 12]
    """

    def __init__(self, rows: list[int], row: Shape, *, even: bool) -> None:
        self._rows = rows
        self._row = row
        #: The shape of all blocks together.
        self.total: Shape = (sum(rows), *row)
        #: The elements of each rank's block; `None` where all are alike.
        self.elements: list[int] | None = None if even else [count * math.prod(row) for count in rows]

    @classmethod
    def split(cls, world_size: int, shape: Shape, counts: Sequence[int] | None) -> Blocks:
        """The blocks of a tensor of `shape` that holds all of them."""
        if not shape:
            raise ValueError("tensor has no dimension: it can't be split over the ranks along its first axis")
        rows, row = shape[0], shape[1:]
        if counts is not None:
            checked = checked_counts("counts", counts, world_size)
            if sum(checked) != rows:
                raise ValueError(f"counts={checked} sum to {sum(checked)}, but the tensor has {rows} rows")
            return cls(checked, row, even=False)
        if rows % world_size:
            raise ValueError(
                f"{rows} rows do not split evenly over {world_size} ranks: give counts=, the rows of each rank"
            )
        return cls([rows // world_size] * world_size, row, even=True)

    @classmethod
    def join(cls, world_size: int, rank: int, shape: Shape, counts: Sequence[int] | None) -> Blocks:
        """The blocks of which one, `rank`'s, has `shape`."""
        rows, row = (shape[0], shape[1:]) if shape else (1, ())
        if counts is None:
            return cls([rows] * world_size, row, even=True)
        checked = checked_counts("counts", counts, world_size)
        if checked[rank] != rows:
            raise ValueError(f"counts={checked} give rank {rank} {checked[rank]} rows, but its tensor has {rows}")
        return cls(checked, row, even=False)

    def rows_of(self, rank: int) -> slice:
        """Where `rank`'s rows are among all."""
        start = sum(self._rows[:rank])
        return slice(start, start + self._rows[rank])

    def shape_of(self, rank: int) -> Shape:
        """The shape of `rank`'s block."""
        return (self._rows[rank], *self._row)


def checked_counts(name: str, counts: Sequence[int], world_size: int) -> list[int]:
    """`counts` as a list of one non-negative integer a rank."""
    try:
        checked = [operator.index(count) for count in counts]
    except TypeError:
        raise TypeError(f"{name} must be a sequence of integers, one a rank, not {counts!r}") from None
    if len(checked) != world_size:
        raise ValueError(f"{name} has {len(checked)} entries for {world_size} ranks: give one a rank")
    if min(checked) < 0:
        raise ValueError(f"{name}={checked}: a rank can't have fewer than 0 rows")
    return checked


def check_shape(name: str, array: Array, shape: Shape, *others: Any) -> None:
    """Raises `ValueError` unless `array` has `shape` (or one of `others`)."""
    if array.shape != shape and array.shape not in others:
        raise ValueError(f"{name} has shape {array.shape}, but {shape} is needed")
