"""What the user sees: the table of digests, and the first wrong element."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import xxhash

from isobit.reference.dtype import Dtype
from isobit.verify.cases import GROUPS, OPERATIONS
from isobit.verify.compare import shown, ulps
from isobit.verify.groups import Group
from isobit.verify.ranks import Finding

#: An error of these kinds follows from another rank's.
_CONSEQUENCES = ("PeerLost", "Aborted", "Timeout")


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    operation: str
    dtypes: str
    cases: int
    wrong: int
    transports: tuple[str, ...]
    world_sizes: tuple[int, ...]
    digest: str
    #: Whether every world size has the same digest.
    is_invariant: bool

    @property
    def is_right(self) -> bool:
        """Whether every result had the law's bits."""
        return self.cases > 0 and self.wrong == 0


def rows(groups: Sequence[Group]) -> list[Row]:
    """The table, from what the ranks found."""
    return [_row(operation, dtypes, groups) for operation in OPERATIONS for dtypes in GROUPS]


def print_table(table: Sequence[Row]) -> None:
    """One line for each operation and group of dtypes."""
    wide = max(len(row.operation) for row in table)
    print(f"\n{'operation':{wide}}  {'dtypes':8}  {'calls':>6}  {'ranks':5}  {'over':11}  {'digest':16}")
    for row in table:
        ranks = f"{row.world_sizes[0]}-{row.world_sizes[-1]}" if row.world_sizes else "none"
        verdict = "ok" if row.is_right else f"WRONG in {row.wrong}" if row.wrong else "not run"
        note = ", at every world size" if row.is_invariant and row.is_right else ""
        print(
            f"{row.operation:{wide}}  {row.dtypes:8}  {row.cases:6}  {ranks:5}  {' '.join(row.transports):11}  "
            f"{row.digest:16}  {verdict}{note}"
        )


def overall_digest(table: Sequence[Row]) -> str:
    """One digest of every result."""
    return xxhash.xxh3_64_hexdigest("".join(row.digest for row in table).encode())


def failure(groups: Sequence[Group]) -> str | None:
    """The first failure, in full; `None` if there is none."""
    for group in groups:
        where = f"of {group.world_size} over {group.transport}"
        wrong = [finding.wrong for finding in group.findings if finding.wrong is not None]
        errors = [finding.error for finding in group.findings if finding.error is not None]
        if wrong:
            first = min(wrong, key=lambda each: (each["number"], each["rank"]))
            return _wrong_element(first, where)
        if errors:
            # A rank that left takes the others with it: look for the one that did not lose a peer.
            cause = min(errors, key=lambda each: (each["kind"] in _CONSEQUENCES, each["number"], each["rank"]))
            trace = "  " + cause["traceback"].rstrip().replace("\n", "\n  ")
            return f"FAILED: {cause['case']}: rank {cause['rank']} {where} raised {cause['kind']}\n{trace}"
    return None


def _wrong_element(wrong: dict[str, Any], where: str) -> str:
    dtype = Dtype(wrong["dtype"])
    steps = ulps(wrong["found"], wrong["expected"], dtype)
    if steps is None:
        apart = "one of them is NaN"
    else:
        apart = f"{steps} ULP apart" if dtype.is_float else f"{steps} apart"
    return (
        f"WRONG: {wrong['case']}: rank {wrong['rank']} {where}\n"
        f"  element   {wrong['index']}, the first of {wrong['elements']} that differ\n"
        f"  found     {shown(wrong['found'], dtype)} in {dtype.value}\n"
        f"  expected  {shown(wrong['expected'], dtype)}\n"
        f"  distance  {apart}"
    )


def _row(operation: str, dtypes: str, groups: Sequence[Group]) -> Row:
    name = f"{operation}/{dtypes}"
    digests = {(group.transport, group.world_size): _joint_digest(group.findings, name) for group in groups}
    counts = [finding.lines[name] for group in groups for finding in group.findings if name in finding.lines]
    by_size: dict[int, set[str]] = {}
    for (_, world_size), digest in digests.items():
        by_size.setdefault(world_size, set()).add(digest)
    different = {digest for found in by_size.values() for digest in found}
    one_a_size = [next(iter(found)) if len(found) == 1 else "transports differ" for found in by_size.values()]
    together = one_a_size[0] if len(different) == 1 else xxhash.xxh3_64_hexdigest("".join(one_a_size).encode())
    return Row(
        operation,
        dtypes,
        sum(line.cases for line in counts),
        sum(line.wrong for line in counts),
        tuple(dict.fromkeys(transport for transport, _ in digests)),
        tuple(sorted(by_size)),
        together,
        len(different) == 1 and len(by_size) > 1,
    )


def _joint_digest(findings: Sequence[Finding], name: str) -> str:
    """The ranks' digest where they all have the same bits, else the digest of theirs in rank order."""
    digests = [finding.lines[name].digest if name in finding.lines else "" for finding in findings]
    return digests[0] if len(set(digests)) == 1 else xxhash.xxh3_64_hexdigest("".join(digests).encode())
