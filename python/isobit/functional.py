"""Calls on the default communicator: the first that `isobit.init()` made and that is not closed.

Each is the method of `isobit.Communicator` of the same name.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import weakref
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from isobit.communicator import Communicator
from isobit.errors import Error

P = ParamSpec("P")
R = TypeVar("R")

_default: Communicator | None = None
_open: weakref.WeakSet[Communicator] = weakref.WeakSet()


def default() -> Communicator:
    """The communicator that module-level calls use; `isobit.Error` before `isobit.init()`.

    >>> comm = isobit.init()
    >>> isobit.default().world_size
    1
    """
    if _default is None or _default.closed:
        raise Error("there is no default communicator: call isobit.init() first")
    return _default


def offer(comm: Communicator) -> None:
    """Makes it the default one if there is none, and has it closed when the interpreter ends."""
    global _default
    _open.add(comm)
    if _default is None or _default.closed:
        _default = comm


@atexit.register
def close_all() -> None:
    """Says goodbye to the groups that nobody left, while the threads that carry out calls can still be joined."""
    for comm in list(_open):
        with contextlib.suppress(Error):
            comm.close()


def _on_default(method: Callable[Concatenate[Communicator, P], R]) -> Callable[P, R]:
    name = method.__name__

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        found: R = getattr(default(), name)(*args, **kwargs)
        return found

    call.__doc__ = f"`Communicator.{name}` on the default communicator."
    return call


all_reduce = _on_default(Communicator.all_reduce)
reduce = _on_default(Communicator.reduce)
reduce_scatter = _on_default(Communicator.reduce_scatter)
all_gather = _on_default(Communicator.all_gather)
gather = _on_default(Communicator.gather)
scatter = _on_default(Communicator.scatter)
broadcast = _on_default(Communicator.broadcast)
all_to_all = _on_default(Communicator.all_to_all)
barrier = _on_default(Communicator.barrier)
send = _on_default(Communicator.send)
recv = _on_default(Communicator.recv)
all_gather_v = _on_default(Communicator.all_gather_v)
gather_v = _on_default(Communicator.gather_v)
scatter_v = _on_default(Communicator.scatter_v)
reduce_scatter_v = _on_default(Communicator.reduce_scatter_v)
all_to_all_v = _on_default(Communicator.all_to_all_v)
broadcast_object = _on_default(Communicator.broadcast_object)
all_gather_object = _on_default(Communicator.all_gather_object)
gather_object = _on_default(Communicator.gather_object)
scatter_object = _on_default(Communicator.scatter_object)
send_object = _on_default(Communicator.send_object)
recv_object = _on_default(Communicator.recv_object)
accumulate = _on_default(Communicator.accumulate)
split = _on_default(Communicator.split)
new_group = _on_default(Communicator.new_group)
explain = _on_default(Communicator.explain)
abort = _on_default(Communicator.abort)
