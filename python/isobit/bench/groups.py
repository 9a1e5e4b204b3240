"""The ranks of one library, from their start to their end: whatever happens, none of them is left."""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from isobit.bench.peers import Library, PeerError
from isobit.bench.rank import NAME, SOCKET
from isobit.guard import Guard

#: Seconds that all ranks of a library have to start, to answer a request, and to end.
START_TIME = 60.0
ANSWER_TIME = 120.0
END_TIME = 10.0
#: `GLIBC_TUNABLES` for large pages under buffers of every size, in every language, as numpy has for large arrays.
LARGE_PAGES = f"glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold={32 << 20}"
#: What a rank must not inherit: the driver may itself be a rank of something.
_FOREIGN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "ISOBIT_JOB", "ISOBIT_TRACE", "ISOBIT_FLIGHT")
_FOREIGN_PREFIXES = ("OMPI_COMM_", "PMI_", "PMIX_", "SLURM_")


class GroupError(Exception):
    """A group that is of no use any more; the text says which and why."""


class Rank:
    """The driver's end of a rank's socket."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.number = -1
        self._rest = b""
        self._lines: list[str] = []
        pid, _, _ = struct.unpack("iii", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        # A descriptor: the number may be another process's one day.
        self._process = os.pidfd_open(pid)

    def read(self) -> str | None:
        """The next whole line, if there is one after reading what has come; `GroupError` at the stream's end."""
        data = self.connection.recv(1 << 20)
        if not data:
            raise GroupError("a rank is gone")
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._lines += [line.decode(errors="replace") for line in lines]
        return self._lines.pop(0) if self._lines else None

    def kill(self) -> None:
        """Ends the process, if it has not ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, signal.SIGKILL)
        os.close(self._process)
        self.connection.close()


class Group:
    """All ranks of one library. `close` or `kill` must follow, whatever `start` did."""

    def __init__(self, library: Library, ranks: int, folder: Path) -> None:
        self.library = library
        self.version = ""
        self._size = ranks
        self._path = folder / secrets.token_hex(4)
        self._log = self._path.with_suffix(".log")
        self._processes: list[subprocess.Popen[bytes]] = []
        self._ranks: list[Rank] = []

    def start(self, guard: Guard) -> None:
        """Starts the ranks and waits until each has said hello; `PeerError` if one does not."""
        with socket.socket(socket.AF_UNIX) as listener:
            try:
                listener.bind(str(self._path))
            except OSError as error:
                raise PeerError(f"no socket can be made in {self._path.parent} (TMPDIR): {error}") from None
            listener.listen(self._size)
            self._launch(guard)
            deadline = time.monotonic() + START_TIME
            try:
                while len(self._ranks) < self._size:
                    self._wait([listener], deadline)
                    self._ranks.append(Rank(listener.accept()[0]))
                greetings = self._answers(deadline)
            except GroupError as error:
                raise PeerError(f"{self.library.label} did not start: {error}{self._last_words()}") from None
        for rank, line in zip(self._ranks, greetings, strict=True):
            _, _, number, size, _, version = line.split(" ", 5)
            self.version = " ".join(version.split(",")[0].split())
            rank.number = int(number)
            if int(size) != self._size:
                raise PeerError(f"{self.library.label} did not start as a group of {self._size}, but of {size}")
        self._ranks.sort(key=lambda rank: rank.number)

    def ask(self, request: str) -> list[str]:
        """Each rank's answer to a line, in rank order; `GroupError` if one is not there in time."""
        try:
            for rank in self._ranks:
                rank.connection.sendall(request.encode() + b"\n")
            return self._answers(time.monotonic() + ANSWER_TIME)
        except (GroupError, OSError) as error:
            raise GroupError(f"{self.library.label} failed at {request!r}: {error}{self._last_words()}") from None

    def close(self) -> None:
        """Lets the ranks leave in good order, and ends those that do not."""
        deadline = time.monotonic() + END_TIME
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            for rank in self._ranks:
                rank.connection.sendall(b"end\n")
            for process in self._processes:
                process.wait(max(0.0, deadline - time.monotonic()))
        self.kill()

    def kill(self) -> None:
        """Ends every process at once."""
        for rank in self._ranks:
            rank.kill()
        for process in self._processes:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._ranks, self._processes = [], []

    def _launch(self, guard: Guard) -> None:
        common = {
            name: value
            for name, value in os.environ.items()
            if name not in _FOREIGN and not name.startswith(_FOREIGN_PREFIXES)
        }
        common |= {
            SOCKET: str(self._path),
            NAME: f"{self.library.library}-{self.library.interface}".replace(" ", "-"),
            "OMP_NUM_THREADS": "1",
            "GLIBC_TUNABLES": LARGE_PAGES,
            **self.library.environment,
        }
        starts: list[tuple[Sequence[str], dict[str, str]]]
        if self.library.launcher:
            starts = [([*self.library.launcher, "-n", str(self._size), *self.library.command], common)]
        else:
            common |= {"WORLD_SIZE": str(self._size), "ISOBIT_JOB": f"bench-{secrets.token_hex(8)}"}
            starts = [
                (self.library.command, {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)})
                for rank in range(self._size)
            ]
        with open(self._log, "wb") as log:
            for command, environment in starts:
                process = subprocess.Popen(
                    command,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    process_group=0,
                )
                self._processes.append(process)
                guard.watch(process.pid)

    def _answers(self, deadline: float) -> list[str]:
        """One line from each rank."""
        lines: dict[Rank, str] = {}
        while missing := [rank for rank in self._ranks if rank not in lines]:
            for ready in self._wait([rank.connection for rank in missing], deadline):
                rank = next(rank for rank in missing if rank.connection is ready)
                if (line := rank.read()) is not None:
                    lines[rank] = line
                    if line.startswith("error "):
                        # The others may wait for this rank.
                        raise GroupError(line.removeprefix("error "))
        return [lines[rank] for rank in self._ranks]

    def _wait(self, sockets: Sequence[socket.socket], deadline: float) -> list[socket.socket]:
        """Those that can be read; `GroupError` if the deadline passes or a process ends first."""
        with selectors.DefaultSelector() as selector:
            for each in sockets:
                selector.register(each, selectors.EVENT_READ)
            alive = [process for process in self._processes if process.poll() is None]
            if len(alive) < len(self._processes):
                deadline = 0.0
            descriptors = [os.pidfd_open(process.pid) for process in alive]
            try:
                for descriptor in descriptors:
                    selector.register(descriptor, selectors.EVENT_READ)
                ready = [key.fileobj for key, _ in selector.select(max(0.0, deadline - time.monotonic()))]
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
        found = [each for each in ready if isinstance(each, socket.socket)]
        if found:
            return found
        for process in self._processes:
            if (status := process.poll()) is not None:
                how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
                raise GroupError(f"{Path(str(process.args[0])).name} {how}")  # type: ignore[index]
        raise GroupError("there was no answer in time")

    def _last_words(self) -> str:
        """The last line that the group's processes wrote, if they did."""
        try:
            lines = self._log.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        last = next((line.strip() for line in reversed(lines) if line.strip(" -=*")), "")
        return f": {last}" if last else ""
