"""The collectives of Python objects, without pickle: values like JSON's, and bytes (see `isobit.codec`).

Sizes are agreed on first and checked against the limit, so no rank can make another allocate more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from isobit.codec import BYTES_MAX, decode, encode
from isobit.movements import Movements
from isobit.session import collective
from isobit.tensors import Array


class Objects(Movements):
    """What a communicator moves that is no tensor.

    Objects are None, bool, int, float (every bit kept), str, bytes, lists and dicts with str keys of these, at
    most 8 deep and 1 MiB long; a tuple arrives as a list.
    """

    __slots__ = ()

    @collective
    def broadcast_object(self, value: Any = None, *, root: int = 0, timeout: float | None = None) -> Any:
        """Gives every rank what rank `root` passes as `value`; the others' is ignored.

        >>> isobit.init().broadcast_object({"lr": 1e-3, "layers": [4, 8]})
        {'lr': 0.001, 'layers': [4, 8]}
        """
        data = _bytes(value) if self.rank == root else np.empty(0, np.uint8)
        sizes = self.broadcast(np.array([data.size], np.uint64), root=root, timeout=timeout)
        if self.rank != root:
            data = np.empty(_checked(sizes)[0], np.uint8)
        return _value(self.broadcast(data, root=root, timeout=timeout))

    @collective
    def all_gather_object(self, value: Any, *, timeout: float | None = None) -> list[Any]:
        """Gives every rank the list of what all ranks pass, in rank order.

        >>> isobit.init().all_gather_object("host-a")
        ['host-a']
        """
        data = _bytes(value)
        counts = _checked(self.all_gather(np.array([data.size], np.uint64), timeout=timeout))
        return _values(self.all_gather(data, counts=counts, timeout=timeout), counts)

    @collective
    def gather_object(self, value: Any, *, root: int = 0, timeout: float | None = None) -> list[Any] | None:
        """Gives rank `root` the list of what all ranks pass, in rank order, and the others `None`.

        >>> isobit.init().gather_object(1.5)
        [1.5]
        """
        data = _bytes(value)
        counts = _checked(self.all_gather(np.array([data.size], np.uint64), timeout=timeout))
        joined = self.gather(data, root=root, counts=counts, timeout=timeout)
        return None if joined is None else _values(joined, counts)

    @collective
    def scatter_object(
        self, values: Sequence[Any] | None = None, *, root: int = 0, timeout: float | None = None
    ) -> Any:
        """Gives each rank its one of the `values` that rank `root` passes, one a rank.

        >>> isobit.init().scatter_object([b"mine"])
        b'mine'
        """
        parts: list[Array] = []
        if self.rank == root:
            if values is None or len(values) != self.world_size:
                raise ValueError(f"rank {root} is the root of this scatter_object: it must give one value a rank")
            parts = [_bytes(value) for value in values]
        sizes = np.array([part.size for part in parts] or [0] * self.world_size, np.uint64)
        counts = _checked(self.broadcast(sizes, root=root, timeout=timeout))
        if self.rank == root:
            return _value(self.scatter(np.concatenate(parts), root=root, counts=counts, timeout=timeout))
        own = np.empty(counts[self.rank], np.uint8)
        return _value(self.scatter(None, own, root=root, counts=counts, timeout=timeout))

    @collective
    def send_object(self, value: Any, dst: int, tag: int = 0, *, timeout: float | None = None) -> None:
        """Sends an object to rank `dst`, which calls `recv_object`."""
        data = _bytes(value)
        self.send(np.array([data.size], np.uint64), dst, tag, timeout=timeout)
        self.send(data, dst, tag, timeout=timeout)

    @collective
    def recv_object(self, src: int, tag: int = 0, *, timeout: float | None = None) -> Any:
        """Receives an object that rank `src` sends with `send_object`, and returns it."""
        size = _checked(self.recv(np.zeros(1, np.uint64), src, tag, timeout=timeout))[0]
        return _value(self.recv(np.empty(size, np.uint8), src, tag, timeout=timeout))


def _bytes(value: Any) -> Array:
    return np.frombuffer(bytearray(encode(value)), np.uint8)


def _checked(sizes: Array) -> list[int]:
    """Sizes that other ranks said, if they are possible."""
    for size in sizes.tolist():
        if size > BYTES_MAX:
            raise ValueError(f"another rank announced an object of {size} bytes: at most {BYTES_MAX} are possible")
    return [int(size) for size in sizes]


def _value(data: Array) -> Any:
    return decode(data.tobytes())


def _values(data: Array, counts: list[int]) -> list[Any]:
    ends = np.cumsum(counts)
    return [_value(data[end - count : end]) for end, count in zip(ends, counts, strict=True)]
