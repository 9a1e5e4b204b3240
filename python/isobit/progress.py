"""How far a long command is, on stderr."""

from __future__ import annotations

import sys
from typing import TextIO


class Progress:
    """A live line on a terminal; in a log, one line for each thing that is done."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream = stream
        self._live = stream.isatty()

    def show(self, name: str, done: int, total: int) -> None:
        """`done` of `total` steps of `name`."""
        line = f"{name:26} [{'#' * (24 * done // total):24}] {done:5}/{total}"
        if self._live:
            print(f"\r\x1b[K{line}", end="\n" if done == total else "", file=self._stream, flush=True)
        elif done == total:
            print(line, file=self._stream, flush=True)

    def clear(self) -> None:
        """Takes the live line away, for something else to be written."""
        if self._live:
            print("\r\x1b[K", end="", file=self._stream, flush=True)
