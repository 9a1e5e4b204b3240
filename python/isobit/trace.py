"""Timelines: the ranks' traces of `ISOBIT_TRACE`, merged into one file that opens in Perfetto.

A rank writes one event a line. Files are read line by line, so that their size does not matter, and what a
process that was killed wrote last may be cut off.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

CLOCK = "isobit_clock"


class TraceError(Exception):
    """A file is no trace; the text says which and why."""


def merge(paths: Sequence[Path], out: Path) -> None:
    """Writes one trace of several, on one time axis. A `TraceError` names the first that is none."""
    origins = [_origin(path) for path in paths]
    first = min(origins, default=0)
    try:
        with out.open("w") as sink:
            separator = "[\n"
            for path, origin in zip(paths, origins, strict=True):
                for event in events(path):
                    if event.get("ph") != "M":
                        event["ts"] = round(event["ts"] + (origin - first) / 1000, 3)
                    elif event.get("name") == CLOCK:
                        event["args"]["origin_ns"] = first
                    sink.write(separator + json.dumps(event, separators=(",", ":")))
                    separator = ",\n"
            sink.write("[]\n" if separator == "[\n" else "\n]\n")
    except OSError as error:
        raise TraceError(f"{out}: {error.strerror}") from None


def events(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a rank's trace; a last one that is cut off is left out."""
    try:
        with path.open() as source:
            cut: int | None = None
            for number, line in enumerate(source, start=1):
                text = line.strip().rstrip(",")
                if text in ("[", "]", ""):
                    continue
                if cut is not None:
                    raise TraceError(f"{path}: line {cut} is no event of a trace of isobit's")
                try:
                    event = json.loads(text)
                except (ValueError, RecursionError):
                    cut = number
                    continue
                if not isinstance(event, dict) or not isinstance(event.get("ts"), int | float):
                    raise TraceError(f"{path}: line {number} is no event of a trace of isobit's")
                yield event
    except UnicodeDecodeError:
        raise TraceError(f"{path}: this is no trace: it is not text") from None
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror}") from None


def _origin(path: Path) -> int:
    for event in events(path):
        if event.get("name") == CLOCK:
            origin = event.get("args", {}).get("origin_ns")
            if isinstance(origin, int):
                return origin
    raise TraceError(f"{path}: this is no trace of isobit's: it does not say when it began")
