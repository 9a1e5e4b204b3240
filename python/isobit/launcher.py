"""`isobit run`: one process per rank of this host, their output, and their end.

Each rank leads a process group of its own, so that a Ctrl-C at the terminal reaches the launcher alone
and everything a rank has started can be ended with it. One loop watches the ranks' output
and a pipe on which signals arrive, the death of a child (SIGCHLD) among them: nothing polls.

No rank outlives the launcher. If it is killed outright, a guard notices: a process that it
forks first, and that does nothing but read a pipe whose other end only the launcher holds. A parent-death signal
would need code between fork and exec in every rank, and is lost when a rank changes its credentials.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from isobit.guard import Guard
from isobit.trace import TraceError, merge

#: How long ranks have to end after SIGINT or SIGTERM, in seconds.
GRACE = 5.0
#: How long ranks have to dump their flight recorders before that, where `ISOBIT_FLIGHT` asks for it, in seconds.
DUMP_TIME = 1.0
#: A line longer than this is passed on in pieces.
LINE_BYTES_MAX = 1 << 20
#: The exit status when the time limit has passed, as in coreutils' timeout.
STATUS_TIMEOUT = 124

_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class Stream:
    """One rank's stdout or stderr, passed on line by line."""

    prefix: bytes
    source: IO[bytes]
    sink: IO[bytes]
    rest: bytes = b""

    def pump(self) -> bool:
        """Passes on what is there; false once there is nothing more to come."""
        try:
            data = os.read(self.source.fileno(), 1 << 16)
        except BlockingIOError:
            return True
        if not data:
            self.finish()
            return False
        *lines, self.rest = (self.rest + data).split(b"\n")
        if len(self.rest) > LINE_BYTES_MAX:
            lines.append(self.rest)
            self.rest = b""
        self._write(lines)
        return True

    def finish(self) -> None:
        """Passes on a last line that has no end."""
        if self.rest:
            self._write([self.rest])
            self.rest = b""

    def _write(self, lines: list[bytes]) -> None:
        # A reader that went away (`| head`) must not end the ranks.
        with contextlib.suppress(BrokenPipeError):
            self.sink.write(b"".join(self.prefix + line + b"\n" for line in lines))
            self.sink.flush()


class Run:
    """The ranks of one `isobit run`, from their start to their end."""

    def __init__(self, world_size: int, command: list[str], timeout: float | None, trace: Path | None = None) -> None:
        self._command = command
        self._world_size = world_size
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._timeout = timeout
        self._trace = trace
        self._ranks: dict[int, subprocess.Popen[bytes]] = {}
        self._streams = selectors.DefaultSelector()
        self._status = 0
        self._ending = False
        self._end_at: float | None = None
        self._kill_at: float | None = None

    def run(self) -> int:
        """Starts the ranks, waits for all of them, and returns the exit status for the launcher."""
        with Guard() as guard, _signals() as wakeup:
            self._streams.register(wakeup, selectors.EVENT_READ)
            try:
                self._start(guard)
                while self._ranks:
                    self._wait(wakeup)
            finally:
                self._signal(signal.SIGKILL)
                for process in self._ranks.values():
                    process.wait()
            self._drain()
        if self._trace is not None:
            self._merge(self._trace)
        return self._status

    def _merge(self, trace: Path) -> None:
        """Makes one timeline of those that the ranks have written."""
        parts = [path for rank in range(self._world_size) if (path := _part(trace, str(rank))).exists()]
        try:
            merge(parts, trace)
        except TraceError as error:
            print(f"isobit run: --trace: {error}", file=sys.stderr, flush=True)
            return
        for path in parts:
            path.unlink()

    def _start(self, guard: Guard) -> None:
        common = {
            **os.environ,
            "WORLD_SIZE": str(self._world_size),
            "LOCAL_WORLD_SIZE": str(self._world_size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(_free_port()),
            "ISOBIT_JOB": secrets.token_hex(16),
        }
        if self._trace is not None:
            common["ISOBIT_TRACE"] = str(_part(self._trace, "%r").absolute())
        for rank in range(self._world_size):
            process = subprocess.Popen(
                self._command,
                env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                process_group=0,
            )
            guard.watch(process.pid)
            self._ranks[rank] = process
            prefix = f"[{rank}] ".encode()
            for source, sink in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
                assert source is not None
                os.set_blocking(source.fileno(), False)
                self._streams.register(source, selectors.EVENT_READ, Stream(prefix, source, sink.buffer))

    def _wait(self, wakeup: socket.socket) -> None:
        for key, _ in self._streams.select(self._patience()):
            if isinstance(key.data, Stream):
                if not key.data.pump():
                    self._streams.unregister(key.fileobj)
                continue
            for number in wakeup.recv(4096):
                if number in _ENDING_SIGNALS:
                    self._interrupted(signal.Signals(number))
                elif number == signal.SIGUSR1:
                    self._ask_for_dumps()
        self._reap()
        now = time.monotonic()
        if self._deadline is not None and now >= self._deadline and not self._ending:
            self._end(STATUS_TIMEOUT, f"the time limit of {self._timeout:g} s has passed", signal.SIGTERM)
        if self._end_at is not None and now >= self._end_at:
            self._signal(signal.SIGTERM)
            self._end_at = None
        if self._kill_at is not None and now >= self._kill_at:
            self._signal(signal.SIGKILL)
            self._kill_at = None

    def _patience(self) -> float | None:
        until = (self._end_at or self._kill_at) if self._ending else self._deadline
        return None if until is None else max(0.0, until - time.monotonic())

    def _reap(self) -> None:
        """Takes note of the ranks that have ended; the first failure ends the others."""
        ended = [rank for rank, process in self._ranks.items() if _has_ended(process.pid)]
        failures = []
        for rank in ended:
            process = self._ranks.pop(rank)
            if self._ending:
                # While the rank is not yet waited for, its group's number can't be another's.
                _signal_group(process.pid, signal.SIGTERM)
            status = process.wait()
            if status:
                failures.append((rank, process.pid, status))
        if failures and not self._ending:
            # A rank that a signal ended is the cause of its peers' errors, not one of them.
            rank, pid, status = min(failures, key=lambda failure: failure[2] > 0)
            code, how = _exit_status(status)
            others = f": ending the other {len(self._ranks)}" if self._ranks else ""
            self._end(code, f"rank {rank} (process {pid}) {how}{others}", signal.SIGTERM, dumps=True)

    def _interrupted(self, number: signal.Signals) -> None:
        if self._ending:
            self._signal(signal.SIGKILL)
        else:
            self._end(128 + number, f"{number.name}: ending all ranks", number)

    def _end(self, status: int, reason: str, number: signal.Signals, *, dumps: bool = False) -> None:
        print(f"isobit run: {reason}", file=sys.stderr, flush=True)
        self._status = status
        self._ending = True
        self._kill_at = time.monotonic() + GRACE
        if dumps and os.environ.get("ISOBIT_FLIGHT"):
            # Those that are left tell what they did; SIGTERM would not let them.
            self._ask_for_dumps()
            self._end_at = time.monotonic() + DUMP_TIME
        else:
            self._signal(number)

    def _ask_for_dumps(self) -> None:
        """Sends SIGUSR1 to the ranks that listen for it: it would end the others."""
        for process in self._ranks.values():
            if _catches(process.pid, signal.SIGUSR1):
                # Not by Popen, which might take note of an end that belongs to _reap.
                os.kill(process.pid, signal.SIGUSR1)

    def _signal(self, number: signal.Signals) -> None:
        for process in self._ranks.values():
            _signal_group(process.pid, number)

    def _drain(self) -> None:
        """Passes on what the ranks wrote last, without waiting for what they left behind."""
        for key in list(self._streams.get_map().values()):
            if isinstance(key.data, Stream):
                while self._streams.select(0) and self._is_ready(key.fd) and key.data.pump():
                    pass
                key.data.finish()

    def _is_ready(self, descriptor: int) -> bool:
        return any(key.fd == descriptor for key, _ in self._streams.select(0))


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _catches(pid: int, number: signal.Signals) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    caught = next((line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")), "0")
    return bool(int(caught, 16) >> (number - 1) & 1)


def _part(trace: Path, rank: str) -> Path:
    """Where a rank writes its timeline, before they are merged."""
    return trace.with_name(f"{trace.name}.{rank}")


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def _exit_status(status: int) -> tuple[int, str]:
    if status > 0:
        return status, f"exited with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = "a signal"
    return 128 - status, f"was ended by signal {-status} ({name})"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def _signals() -> Iterator[socket.socket]:
    """A socket on which the numbers of signals arrive, one byte each."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    # A handler must exist for the number to be written; what to do with it is the loop's business.
    handlers = {number: signal.signal(number, _ignore) for number in (*_ENDING_SIGNALS, signal.SIGCHLD, signal.SIGUSR1)}
    try:
        yield reader
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before)
        reader.close()
        writer.close()


def _ignore(number: int, frame: object) -> None:
    pass
