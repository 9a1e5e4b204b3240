"""A process that ends the launcher's ranks if the launcher is gone without having done so."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from types import TracebackType
from typing import Self

_GOODBYE = b"\n"


class Guard:
    """Watches the ranks while the `with` block runs.

    It is a fork of the launcher, made before anything else happens, that reads a pipe. The ranks' process numbers
    come over it, and its end means that the launcher died. It keeps a descriptor of each rank, so that
    a number that was given to another process meanwhile is never signalled.
    """

    def __enter__(self) -> Self:
        reader, self._writer = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            # Nothing of the launcher's may run in here, whatever happens: not even its exit handlers.
            try:
                os.close(self._writer)
                _guard(reader)
            finally:
                os._exit(0)
        os.close(reader)
        return self

    def watch(self, pid: int) -> None:
        """Ends the process group `pid` with the launcher."""
        os.write(self._writer, b"%d " % pid)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            os.write(self._writer, _GOODBYE)
        os.close(self._writer)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


def _guard(reader: int) -> None:
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # Whoever reads the launcher's output must not wait for the guard.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    ranks: list[tuple[int, int]] = []
    text = b""
    while data := os.read(reader, 4096):
        if data.endswith(_GOODBYE):
            return
        *words, text = (text + data).split(b" ")
        for word in words:
            with contextlib.suppress(ProcessLookupError):
                ranks.append((int(word), os.pidfd_open(int(word))))
    for pid, descriptor in ranks:
        # A descriptor becomes readable when its process ends.
        ended, _, _ = select.select([descriptor], [], [], 0)
        if not ended:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
