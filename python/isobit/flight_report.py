"""`isobit flight`: the ranks' dumps laid side by side. Who is behind, who called what else, and where."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Record = dict[str, Any]

#: What ranks must agree on in one collective; where it differs it is named.
AGREED = ("operation", "contract", "dtype", "root", "count", "shape", "layout")
#: The fields that a record is of no use without, and their types.
NEEDED: dict[str, type] = {"epoch": int, "sequence": int, "channel": str, "operation": str, "state": str}


class DumpError(Exception):
    """A file is no dump; the text says which and why."""


@dataclass
class Dump:
    """One rank's operations in one group."""

    rank: int
    group: str
    world_size: int
    time_ns: int
    host: str
    pid: int
    path: Path
    is_cut: bool = False
    records: list[Record] = field(default_factory=list)

    def collectives(self) -> dict[tuple[int, int], Record]:
        """By epoch and number."""
        return {(r["epoch"], r["sequence"]): r for r in self.records if r["channel"] == "collective"}

    def reached(self) -> tuple[int, int]:
        """The latest collective that this rank has begun."""
        return max(self.collectives(), default=(-1, -1))


def read(paths: Iterable[Path]) -> list[Dump]:
    """The dumps in some files, or folders of files; of several of one rank in one group the latest.

    A last line that was cut off is left out. Anything else that is no dump is a `DumpError`.
    """
    files: list[Path] = []
    for path in paths:
        files += sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        if path.is_dir() and not any(path.glob("*.jsonl")):
            raise DumpError(f"{path}: there is no dump (*.jsonl) in this folder")
    found: dict[tuple[str, int], Dump] = {}
    for path in files:
        for dump in _read(path):
            other = found.get((dump.group, dump.rank))
            if other is None or other.time_ns <= dump.time_ns:
                found[dump.group, dump.rank] = dump
    return sorted(found.values(), key=lambda dump: (dump.group, dump.rank))


def _read(path: Path) -> list[Dump]:
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise DumpError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DumpError(f"{path}: this is no dump of a flight recorder: it is not text") from None
    dumps: list[Dump] = []
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            if number == len(lines) and dumps:
                # What a process wrote last may end anywhere.
                dumps[-1].is_cut = True
                break
            raise DumpError(f"{path}: line {number} is not JSON: this is no dump of a flight recorder") from None
        if isinstance(value, dict) and value.get("isobit") == "flight recorder":
            dumps.append(_header(path, number, value))
        elif dumps and isinstance(value, dict) and all(isinstance(value.get(k), t) for k, t in NEEDED.items()):
            dumps[-1].records.append(value)
        else:
            raise DumpError(f"{path}: line {number} is no line of a flight recorder's dump")
    if not dumps:
        raise DumpError(f"{path}: this is no dump of a flight recorder: it is empty")
    return dumps


def _header(path: Path, number: int, value: Record) -> Dump:
    if value.get("version") != 1:
        raise DumpError(f"{path}: line {number}: this release reads version 1, not {value.get('version')!r}")
    kinds = {"rank": int, "world_size": int, "time_ns": int, "pid": int, "group": str, "host": str}
    for name, kind in kinds.items():
        if not isinstance(value.get(name), kind):
            raise DumpError(f"{path}: line {number} has no {name}: this is no dump of a flight recorder")
    return Dump(**{name: value[name] for name in kinds}, path=path)


def report(dumps: list[Dump]) -> str:
    """What the dumps say, group by group."""
    groups: dict[str, list[Dump]] = defaultdict(list)
    for dump in dumps:
        groups[dump.group].append(dump)
    return "\n\n".join("\n".join(_group(members)) for members in groups.values())


def _group(dumps: list[Dump]) -> Iterable[str]:
    world_size = dumps[0].world_size
    yield f"group {dumps[0].group} of {world_size} rank{'s' if world_size > 1 else ''}"
    for dump in dumps:
        cut = "; its file is cut off" if dump.is_cut else ""
        yield f"  rank {dump.rank} ({dump.host}, process {dump.pid}): {_last(dump)}{cut}"
    there = {dump.rank for dump in dumps}
    if missing := [rank for rank in range(world_size) if rank not in there]:
        yield f"no dump of {_ranks(missing)}: killed, or never asked"
    different = list(_different(dumps))
    yield from different
    behind = list(_behind(dumps))
    yield from behind
    yield from _waits(dumps)
    yield from _errors(dumps)
    if not different and not behind:
        yield f"{_ranks(sorted(there))} made the same calls, as far as they are recorded"


def _last(dump: Dump) -> str:
    if not dump.records:
        return "has made no call"
    record = dump.records[-1]
    what = f"operation {_place(record)} {describe(record)}"
    start, end = record.get("start_ns"), record.get("end_ns")
    if record["state"] == "started" and isinstance(start, int):
        awaited = record.get("awaited")
        waits = "" if awaited is None else f", waits for rank {awaited}"
        return f"in {what} for {(dump.time_ns - start) / 1e9:.3f} s{waits}, {_site(record)}"
    ago = f" {(dump.time_ns - end) / 1e9:.3f} s before its dump" if isinstance(end, int) else ""
    return f"last in {what}, {record['state']}{ago}, {_site(record)}"


def _different(dumps: list[Dump]) -> Iterable[str]:
    """The first operation of each epoch that ranks called differently."""
    calls: dict[tuple[int, int], dict[int, Record]] = defaultdict(dict)
    for dump in dumps:
        for key, record in dump.collectives().items():
            calls[key][dump.rank] = record
    told: set[int] = set()
    for (epoch, sequence), ranks in sorted(calls.items()):
        kinds: dict[str, list[int]] = defaultdict(list)
        for rank, record in ranks.items():
            kinds[json.dumps([record.get(name) for name in AGREED])].append(rank)
        if len(kinds) < 2 or epoch in told:
            continue
        told.add(epoch)
        # The fewest are taken for the odd ones.
        order = sorted(kinds.values(), key=lambda members: (-len(members), members))
        usual, odd = ranks[order[0][0]], ranks[order[-1][0]]
        name = next(name for name in AGREED if usual.get(name) != odd.get(name))
        yield f"different calls in operation {epoch}.{sequence}: the {name} is not the same"
        for members in order:
            record = ranks[members[0]]
            yield f"  {_ranks(members)} called {describe(record)}, {_site(record)}"


def _behind(dumps: list[Dump]) -> Iterable[str]:
    """The ranks that have not begun what others have, the last of them first."""
    reached = {dump.rank: dump.reached() for dump in dumps}
    furthest = max(reached.values())
    ahead = next(dump for dump in dumps if reached[dump.rank] == furthest)
    for dump in sorted(dumps, key=lambda dump: (reached[dump.rank], dump.rank)):
        if reached[dump.rank] < furthest:
            record = ahead.collectives()[furthest]
            last = dump.collectives().get(reached[dump.rank])
            where = "has begun no collective" if last is None else f"last began {_place(last)}, {_site(last)}"
            yield (
                f"rank {dump.rank} is behind: rank {ahead.rank} has begun operation {_place(record)} "
                f"{describe(record)}, {_site(record)}; rank {dump.rank} {where}"
            )


def _waits(dumps: list[Dump]) -> Iterable[str]:
    """Who waits for whom, and for whom in the end."""
    waits = {
        dump.rank: awaited
        for dump in dumps
        if dump.records and dump.records[-1]["state"] == "started"
        if isinstance(awaited := dump.records[-1].get("awaited"), int)
    }
    for awaited in sorted(set(waits.values())):
        by = [rank for rank in waits if waits[rank] == awaited]
        yield f"rank {awaited} is waited for by {_ranks(by)}"
    ends: dict[int, list[int]] = defaultdict(list)
    for rank in waits:
        passed, at = {rank}, waits[rank]
        while at in waits and at not in passed:
            passed.add(at)
            at = waits[at]
        if at not in waits:
            ends[at].append(rank)
    there = {dump.rank: dump for dump in dumps}
    for at, ranks in sorted(ends.items()):
        calls = at in there and there[at].records and there[at].records[-1]["state"] == "started"
        how = "left no dump" if at not in there else "waits for nobody" if calls else "is in no call"
        yield f"in the end {_ranks(ranks)} wait{'s' * (len(ranks) == 1)} for rank {at}, which {how}"


def _errors(dumps: list[Dump]) -> Iterable[str]:
    failed = [(r["end_ns"], dump.rank, r) for dump in dumps for r in dump.records if isinstance(r.get("error"), str)]
    if failed:
        _, rank, record = min(failed, key=lambda one: one[:2])
        awaited = record.get("awaited")
        waited = "" if awaited is None else f", where it waited for rank {awaited}"
        place = f"operation {_place(record)}, {_site(record)}"
        yield f"the first failure was on rank {rank}: {record['error']} in {place}{waited}"


def describe(record: Record) -> str:
    """A record's call in one expression."""
    parts = [f"{record.get('count')} x {record.get('dtype')}"]
    if record.get("contract"):
        parts.append(str(record["contract"]))
    for name in ("root", "peer", "tag"):
        if record.get(name) is not None:
            parts.append(f"{name} {record[name]}")
    return f"{record['operation']}({', '.join(parts)})"


def _place(record: Record) -> str:
    return f"{record['epoch']}.{record['sequence']}"


def _site(record: Record) -> str:
    site = record.get("site")
    return f"called at {site}" if site else "called from an unknown place"


def _ranks(ranks: list[int]) -> str:
    runs = ", ".join(str(rank) for rank in sorted(ranks))
    return f"rank {runs}" if len(ranks) == 1 else f"ranks {runs}"
