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
    ContractMismatch,
    Corruption,
    Desync,
    Error,
    PeerLost,
    RemoteArgumentError,
    Timeout,
    Unavailable,
    VersionMismatch,
)
from isobit.group import init, memory_group

__all__ = [
    "Aborted",
    "Accumulation",
    "AuthError",
    "Communicator",
    "ContractMismatch",
    "Corruption",
    "Desync",
    "Error",
    "PeerLost",
    "RemoteArgumentError",
    "Timeout",
    "Unavailable",
    "VersionMismatch",
    "__version__",
    "init",
    "memory_group",
]
