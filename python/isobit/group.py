"""Joining a group: from the launcher's variables, or inside one process."""

from __future__ import annotations

import itertools
import os

from isobit import _native, environment, flight, functional
from isobit.communicator import Communicator
from isobit.errors import Unavailable

#: How long a call may take, in seconds, unless it or `ISOBIT_TIMEOUT` says otherwise.
TIMEOUT_DEFAULT = 600.0

_groups = itertools.count()


def init(*, timeout: float | None = None, transport: str | None = None) -> Communicator:
    """Joins the group of processes that this one was started with, and returns its communicator.

    The launcher's variables say who belongs to it: those of `isobit run`, torchrun, Slurm or Open
    MPI. With none of them the world is this process alone, and every call works.

    `timeout`, in seconds, is how long to wait for the other ranks, and how long every later call may
    take that gives no timeout of its own (`ISOBIT_TIMEOUT`, else 600). `transport` is "auto" or "shm"
    (`ISOBIT_TRANSPORT`, else "auto").

    Raises `Timeout` if a rank does not come, `Unavailable` if the ranks are on more than one host or the
    transport can't be had, and `ValueError` for variables that contradict each other.

    The first communicator becomes the default one, until it is closed: `isobit.all_reduce(tensor)` and all other
    calls use it without being given it. Called again, `init` forms another group of the same ranks; all must do so.

    >>> comm = init()
    >>> comm.rank, comm.world_size
    (0, 1)
    """
    world = environment.read(os.environ)
    seconds = _seconds(timeout)
    _check_transport(transport)
    if world.world_size == 1:
        native = _native.Communicator.solo()
    else:
        # A process may form several groups, one after the other; each needs a name of its own.
        job = f"{world.job}-{next(_groups)}"
        native = _native.Communicator.connect(job, world.rank, world.world_size, seconds)
    native.set_timeout(seconds)
    comm = Communicator(native, world.local_rank)
    functional.offer(comm)
    flight.listen()
    return comm


def memory_group(world_size: int, *, timeout: float | None = None) -> list[Communicator]:
    """The communicators of a group inside this process, one for each of `world_size` threads.

    For tests and notebooks. The bits are those of any other transport.

    >>> import numpy as np
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> with ThreadPoolExecutor(3) as threads:
    ...     list(threads.map(lambda comm: comm.all_reduce(np.array(comm.rank + 1)), memory_group(3)))
    [array(6), array(6), array(6)]
    """
    if world_size < 1:
        raise ValueError(f"world_size={world_size}: a group has at least one rank")
    natives = _native.Communicator.memory_group(world_size)
    for native in natives:
        native.set_timeout(_seconds(timeout))
    return [Communicator(native, native.rank) for native in natives]


def _seconds(timeout: float | None) -> float:
    if timeout is not None:
        return timeout
    text = os.environ.get("ISOBIT_TIMEOUT")
    if text is None:
        return TIMEOUT_DEFAULT
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"ISOBIT_TIMEOUT={text!r} must be seconds") from None


def _check_transport(asked: str | None) -> None:
    name, said = asked, f"transport={asked!r}"
    if name in (None, "auto"):
        name = os.environ.get("ISOBIT_TRANSPORT", "auto")
        said = f"ISOBIT_TRANSPORT={name!r}"
    if name in ("auto", "shm"):
        return
    if name == "memory":
        raise ValueError(f"{said} joins the threads of one process: use isobit.memory_group(n)")
    if name in ("quic", "rdma"):
        raise Unavailable(f"{said} is not there yet: this release has 'shm', and memory_group for threads")
    raise ValueError(f"{said} is none of auto, shm")
