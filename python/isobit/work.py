"""A call that goes on while its caller computes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from isobit import _native
from isobit.errors import Timeout


class Work:
    """A call with `async_op=True`: it is carried out in the background, after those that were issued before it.

    Its arrays are kept, and can't be resized, until it is done; don't read or write them before. Ranks
    must issue their calls, blocking ones included, in the same order. An array that had to be copied (a strided
    one, say) gets its values when `wait`, `is_completed` or `result` first sees that the call is done.

    >>> import numpy as np, isobit
    >>> comm = isobit.init()
    >>> work = comm.all_reduce(np.ones(2), async_op=True)
    >>> work.wait()
    array([1., 1.])
    >>> work.is_completed(), work.exception()
    (True, None)
    """

    __slots__ = ("_done", "_finish", "_result", "_works")

    def __init__(
        self, works: Sequence[_native.Work], result: Any = None, finish: Callable[[], None] | None = None
    ) -> None:
        self._works = works
        self._result = result
        self._finish = finish
        self._done = False

    def wait(self, timeout: float | None = None) -> Any:
        """Waits until the call is done and returns what it would have returned without `async_op`.

        Raises what it failed with. After `timeout` seconds it raises `isobit.Timeout`, and after Ctrl-C
        `KeyboardInterrupt`: the call itself goes on then, and can be waited for again.
        """
        until = None if timeout is None else time.monotonic() + timeout
        for work in () if self._done else self._works:
            left = timeout if until is None or work is self._works[0] else max(until - time.monotonic(), 1e-6)
            if not work.wait(left):
                raise Timeout(f"the call is not done within {timeout} s; it goes on, and can be waited for again")
        self._complete()
        return self._result

    def is_completed(self) -> bool:
        """Whether the call is done, well or not."""
        if not all(work.is_completed() for work in self._works):
            return False
        if self.exception() is None:
            self._complete()
        return True

    def exception(self) -> BaseException | None:
        """What the call failed with; `None` if it has not, or is not done."""
        return next((error for work in self._works if (error := work.exception()) is not None), None)

    def result(self) -> Any:
        """What the call returns: `wait()` without an end."""
        return self.wait()

    def _complete(self) -> None:
        if not self._done:
            self._done = True
            if self._finish is not None:
                self._finish()
            self._finish = None

    def __repr__(self) -> str:
        return f"<isobit.Work, {'done' if all(work.is_completed() for work in self._works) else 'in progress'}>"
