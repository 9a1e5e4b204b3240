"""The extension module: arguments, the interpreter's lock, errors. `isobit` is the API above it."""

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, final

__version__: str
#: What a list of arrays has as its shape: this word, their number, and for each its number of dimensions and they.
SEVERAL_TENSORS: int

class NeedsCopy(Exception): ...

def forked() -> None: ...
def dump_flight_recorders(folder: str | PathLike[str], reason: str) -> list[Path]: ...
def shortcut(name: str, otherwise: Callable[..., Any]) -> Callable[..., Any]: ...

@final
class FlightRecorder:
    def json(self, reason: str) -> str: ...
    def dump(self, path: str | PathLike[str], reason: str) -> None: ...

@final
class Work:
    def is_completed(self) -> bool: ...
    def wait(self, timeout: float | None) -> bool: ...
    def exception(self) -> BaseException | None: ...

@final
class Accumulator:
    def add(self, leaf: int, tensor: Any) -> None: ...

class Handle:
    @property
    def _native(self) -> Communicator: ...

@final
class Communicator:
    @property
    def rank(self) -> int: ...
    @property
    def world_size(self) -> int: ...
    @property
    def epoch(self) -> int: ...
    @property
    def transport(self) -> str: ...
    @property
    def flight_recorder(self) -> FlightRecorder: ...
    @staticmethod
    def solo() -> Communicator: ...
    @staticmethod
    def memory_group(n: int) -> list[Communicator]: ...
    @staticmethod
    def connect(job: str, rank: int, world_size: int, timeout: float) -> Communicator: ...
    def set_timeout(self, timeout: float) -> None: ...
    def all_reduce(
        self,
        tensor: Any,
        out: Any,
        op: str,
        order: str,
        accumulate: str | None,
        divisor: int | None,
        shape: Sequence[int] | None,
        timeout: float | None,
        background: bool,
    ) -> Work | None: ...
    def reduce(
        self,
        tensor: Any,
        out: Any | None,
        op: str,
        order: str,
        accumulate: str | None,
        out_dtype: str | None,
        divisor: int | None,
        root: int,
        timeout: float | None,
        background: bool,
    ) -> Work | None: ...
    def reduce_scatter(
        self,
        tensor: Any,
        out: Any,
        op: str,
        order: str,
        accumulate: str | None,
        divisor: int | None,
        counts: Sequence[int] | None,
        timeout: float | None,
        background: bool,
    ) -> Work | None: ...
    def all_gather(
        self,
        tensor: Any,
        out: Any,
        shape: Sequence[int],
        counts: Sequence[int] | None,
        timeout: float | None,
        background: bool,
    ) -> Work | None: ...
    def gather(
        self,
        tensor: Any,
        out: Any | None,
        shape: Sequence[int],
        root: int,
        counts: Sequence[int] | None,
        timeout: float | None,
        background: bool,
    ) -> Work | None: ...
    def scatter(
        self,
        tensor: Any | None,
        out: Any,
        shape: Sequence[int],
        root: int,
        counts: Sequence[int] | None,
        timeout: float | None,
        background: bool,
    ) -> Work | None: ...
    def broadcast(
        self, tensor: Any, root: int, shape: Sequence[int] | None, timeout: float | None, background: bool
    ) -> Work | None: ...
    def all_to_all(
        self,
        tensor: Any,
        out: Any,
        shape: Sequence[int],
        send_counts: Sequence[int] | None,
        recv_counts: Sequence[int] | None,
        timeout: float | None,
        background: bool,
    ) -> Work | None: ...
    def barrier(self, timeout: float | None, background: bool) -> Work | None: ...
    def send(self, tensor: Any, dst: int, tag: int, timeout: float | None, background: bool) -> Work | None: ...
    def recv(self, tensor: Any, src: int, tag: int, timeout: float | None, background: bool) -> Work | None: ...
    def leaves(self, num_leaves: int) -> list[tuple[int, int]]: ...
    def accumulator(
        self,
        num_leaves: int,
        order: str,
        accumulate: str | None,
        out_dtype: str | None,
        dtype: str,
        shape: Sequence[int],
    ) -> Accumulator: ...
    def accumulated_all_reduce(
        self, accumulator: Accumulator, out: Any, op: str, divisor: int | None, timeout: float | None, background: bool
    ) -> Work | None: ...
    def accumulated_reduce_scatter(
        self,
        accumulator: Accumulator,
        out: Any,
        op: str,
        divisor: int | None,
        counts: Sequence[int] | None,
        timeout: float | None,
        background: bool,
    ) -> Work | None: ...
    def split(self, color: int | None, key: int, timeout: float | None) -> Communicator | None: ...
    def new_group(self, ranks: Sequence[int], timeout: float | None) -> Communicator | None: ...
    def explain(
        self,
        collective: str,
        count: int,
        dtype: str,
        op: str,
        order: str,
        accumulate: str | None,
        out_dtype: str | None,
        num_leaves: int | None,
        root: int,
    ) -> dict[str, Any]: ...
    def refuse(self, operation: str, message: str, memory: bool) -> None: ...
    def abort(self, reason: str) -> None: ...
    def close(self) -> None: ...

def default_constants() -> dict[str, float]: ...
def plan(
    *,
    ranks: int,
    nodes: int,
    collective: str,
    count: int,
    dtype: str,
    op: str,
    order: str,
    num_leaves: int,
    constants: dict[str, float],
    cores: int | None,
    cache_bytes: int,
) -> dict[str, Any]: ...
