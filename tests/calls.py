"""Every collective as one call on the same tensor, for tests of what is wrong with one rank's call."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import isobit
import numpy as np
from truth import Array

Shape = tuple[int, ...]


class Call(NamedTuple):
    """A collective with `out`."""

    make: Callable[[isobit.Communicator, Array, Array, int], object]
    #: The shape of `out`, given the tensor's and the world size.
    out: Callable[[Shape, int], Shape] = lambda shape, n: shape
    reduces: bool = False
    rooted: bool = False


def joined(shape: Shape, n: int) -> Shape:
    return (n * shape[0], *shape[1:])


def parted(shape: Shape, n: int) -> Shape:
    return (shape[0] // n, *shape[1:])


def scatter(comm: isobit.Communicator, tensor: Array, out: Array, root: int) -> None:
    comm.scatter(tensor if comm.rank == root else None, out, root=root)


CALLS = {
    "all_reduce": Call(lambda comm, t, out, root: comm.all_reduce(t, out), reduces=True),
    "all_reduce in place": Call(lambda comm, t, out, root: comm.all_reduce(t), reduces=True),
    "reduce": Call(lambda comm, t, out, root: comm.reduce(t, out, root=root), reduces=True, rooted=True),
    "reduce_scatter": Call(lambda comm, t, out, root: comm.reduce_scatter(t, out), out=parted, reduces=True),
    "all_gather": Call(lambda comm, t, out, root: comm.all_gather(t, out), out=joined),
    "gather": Call(lambda comm, t, out, root: comm.gather(t, out, root=root), out=joined, rooted=True),
    "scatter": Call(scatter, out=parted, rooted=True),
    "broadcast": Call(lambda comm, t, out, root: comm.broadcast(t, root=root), rooted=True),
    "all_to_all": Call(lambda comm, t, out, root: comm.all_to_all(t, out)),
}


def values(shape: Shape, dtype: type[np.generic], rank: int) -> Array:
    """A rank's tensor."""
    return (np.arange(np.prod(shape)) % 89 + rank).reshape(shape).astype(dtype)
