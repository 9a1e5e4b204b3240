"""isobit: collective communication whose results are a function of the data alone.

The same contributions give the same bits on every run, on every number of ranks, over every
transport, on every CPU.

>>> import numpy as np
>>> import isobit
>>> comm = isobit.init()
>>> comm.all_reduce(np.ones(3), op="sum")
array([1., 1., 1.])
"""

from isobit._native import __version__
from isobit.accumulation import Accumulation
from isobit.communicator import Communicator
from isobit.errors import (
    Aborted,
    AuthError,
    ConcurrentUseError,
    ContractMismatch,
    Corruption,
    Desync,
    Error,
    ForkedProcessError,
    PeerLost,
    RemoteArgumentError,
    Timeout,
    Unavailable,
    VersionMismatch,
)
from isobit.explanation import Explanation
from isobit.flight import dump_flight_recorders
from isobit.functional import (
    abort,
    accumulate,
    all_gather,
    all_gather_object,
    all_gather_v,
    all_reduce,
    all_to_all,
    all_to_all_v,
    barrier,
    broadcast,
    broadcast_object,
    default,
    explain,
    gather,
    gather_object,
    gather_v,
    new_group,
    recv,
    recv_object,
    reduce,
    reduce_scatter,
    reduce_scatter_v,
    scatter,
    scatter_object,
    scatter_v,
    send,
    send_object,
    split,
)
from isobit.group import init, memory_group
from isobit.work import Work

__all__ = [
    "Aborted",
    "Accumulation",
    "AuthError",
    "Communicator",
    "ConcurrentUseError",
    "ContractMismatch",
    "Corruption",
    "Desync",
    "Error",
    "Explanation",
    "ForkedProcessError",
    "PeerLost",
    "RemoteArgumentError",
    "Timeout",
    "Unavailable",
    "VersionMismatch",
    "Work",
    "__version__",
    "abort",
    "accumulate",
    "all_gather",
    "all_gather_object",
    "all_gather_v",
    "all_reduce",
    "all_to_all",
    "all_to_all_v",
    "barrier",
    "broadcast",
    "broadcast_object",
    "default",
    "dump_flight_recorders",
    "explain",
    "gather",
    "gather_object",
    "gather_v",
    "init",
    "memory_group",
    "new_group",
    "recv",
    "recv_object",
    "reduce",
    "reduce_scatter",
    "reduce_scatter_v",
    "scatter",
    "scatter_object",
    "scatter_v",
    "send",
    "send_object",
    "split",
]
