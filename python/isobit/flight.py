"""Dumps of the flight recorder: on request, on SIGUSR1, and when the process ends by an error.

The recorder itself is always on, in native code. Nothing is written that nobody asked for: a call asks, a
signal asks, and `ISOBIT_FLIGHT=folder` asks for a dump of every operation that fails.
"""

from __future__ import annotations

import atexit
import os
import sys
from typing import TYPE_CHECKING

from isobit import _native
from isobit.errors import Error

if TYPE_CHECKING:
    from pathlib import Path

#: The variable that names the folder for dumps.
VARIABLE = "ISOBIT_FLIGHT"

_listening = False


def dump_flight_recorders(folder: str | os.PathLike[str]) -> list[Path]:
    """Writes a dump of every communicator of this process into `folder`; returns the files.

    `isobit flight` reads those of all ranks together.

    >>> import tempfile
    >>> comm = isobit.init()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     len(isobit.dump_flight_recorders(folder)) > 0
    True
    """
    return _native.dump_flight_recorders(folder, "dump_flight_recorders")


def listen() -> None:
    """Dumps on SIGUSR1, unless the program has a handler of its own, and at an end by an error, if asked to.

    Without a handler SIGUSR1 would end the process, so nothing that a program relies on is taken away; one that
    it installs later takes this one's place.
    """
    global _listening
    if _listening:
        return
    import signal  # not by an import of isobit, which loads nothing that only groups need
    import threading

    _listening = True
    atexit.register(_at_exit)
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL:
        signal.signal(signal.SIGUSR1, _on_signal)


def _on_signal(number: int, frame: object) -> None:
    _dump(os.environ.get(VARIABLE) or ".", "SIGUSR1", verbose=True)


def _at_exit() -> None:
    # Set by the interpreter when an exception ends a program: its peers will ask what it did. An error of this
    # package's has left its dump when it was raised.
    error = getattr(sys, "last_value", None)
    folder = os.environ.get(VARIABLE)
    if folder and error is not None and not isinstance(error, Error):
        _dump(folder, f"ended by {type(error).__name__}", verbose=False)


def _dump(folder: str, reason: str, *, verbose: bool) -> None:
    try:
        paths = _native.dump_flight_recorders(folder, reason)
    except OSError as error:
        print(f"isobit: {folder}: the flight recorder can't be written: {error}", file=sys.stderr)
        return
    if verbose:
        for path in paths:
            print(f"isobit: wrote the flight recorder to {path}", file=sys.stderr)
