"""What the collectives have in common: the group's native handle, and that a refused call is told to the others."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Concatenate, Literal, ParamSpec, TypeAlias, TypeVar

from isobit import _native
from isobit.errors import Error

Op: TypeAlias = Literal["sum", "mean", "prod", "min", "max", "band", "bor", "bxor"]
Order: TypeAlias = Literal["tree", "exact"]

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound="Session")


class Session(_native.Handle):
    """A rank's place in its group."""

    __slots__ = ("rank", "world_size")

    #: This rank's number, from 0.
    rank: int
    #: How many ranks the group has.
    world_size: int

    def __init__(self, native: _native.Communicator) -> None:
        self.rank = native.rank
        self.world_size = native.world_size

    def _refuse(self, operation: str, error: BaseException) -> None:
        """Tells the other ranks that this one's call failed before anything was sent, unless they know."""
        if isinstance(error, Error) or getattr(error, "isobit_told", False):
            return
        with contextlib.suppress(AttributeError):
            error.isobit_told = True  # type: ignore[attr-defined]
        # The group may be over, closed, or another thread's: then nobody waits for this call.
        try:
            self._native.refuse(operation, f"{type(error).__name__}: {error}", isinstance(error, MemoryError))
        except Error:
            return


def collective(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Has a method that every rank calls tell the others if it fails here alone, so that nobody waits in vain."""
    name = method.__name__

    @functools.wraps(method)
    def told(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except BaseException as error:
            self._refuse(name, error)
            raise

    return told


def shortcut(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Has the native layer's method of that name asked first; the method itself has what it leaves.

    So a call on numpy arrays that lie as they should is over before Python has looked at it.
    """
    short: Callable[Concatenate[S, P], R] = _native.shortcut(method.__name__, method)
    return short
