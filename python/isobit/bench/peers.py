"""Which libraries can be measured here, how each is started, and how one that is missing is installed."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import isobit
from isobit.bench.toolchains import PATIENCE, MissingError, Mpi, intel_mpi, mpich, open_mpi, said

#: The one command that installs each; `benches/peers/install.sh` runs it.
INSTALL = {
    "gloo": "pip install torch",
    "openmpi": "apt-get install -y --no-install-recommends openmpi-bin libopenmpi-dev gcc",
    "mpich": "apt-get install -y --no-install-recommends mpich libmpich-dev gcc",
    "intelmpi": "pip install impi-rt impi-devel",
    "mpi4py": "pip install mpi4py",
    "rust": "cargo build --release --locked -p isobit --example bench_rank",
}
#: What `--peers` may name.
PEERS = {"gloo": "Gloo", "openmpi": "Open MPI", "mpich": "MPICH", "intelmpi": "Intel MPI"}
_MPIS: dict[str, Callable[[int, Path], Mpi]] = {"openmpi": open_mpi, "mpich": mpich, "intelmpi": intel_mpi}
_SOURCE = Path(__file__).with_name("mpi_rank.c")
_RANK = [sys.executable, "-m", "isobit.bench.rank"]


class PeerError(Exception):
    """A library that is installed does not work here; the text says which and how."""


@dataclass(frozen=True, eq=False)
class Library:
    """One library through one interface, ready to be started."""

    library: str
    #: "c", "rust" or "python".
    interface: str
    command: Sequence[str]
    environment: Mapping[str, str]
    #: What starts all ranks at once, up to their number; without one the driver starts each rank.
    launcher: Sequence[str] = ()

    @property
    def label(self) -> str:
        """As people read it: `Open MPI, C`."""
        return f"{self.library}, {self.interface.capitalize()}"


def ours(buffers: str) -> tuple[list[Library], list[str]]:
    """isobit from Python, and from Rust if it is built; and what is skipped, with how to get it."""
    found = [Library("isobit", "python", [*_RANK, "isobit", buffers], {})]
    rust = Path(isobit.__file__).parents[2] / "target/release/examples/bench_rank"
    if rust.exists():
        found.append(Library("isobit", "rust", [str(rust)], {}))
        return found, []
    return found, [_skipped("isobit, Rust", "its program is not built in a checkout", "rust")]


def theirs(names: Sequence[str], ranks: int, buffers: str, folder: Path) -> tuple[list[Library], list[str]]:
    """The peers of these names that are here, and what is skipped. `folder` is for what has to be made for them."""
    found: list[Library] = []
    skipped: list[str] = []
    for name in names:
        label = PEERS[name]
        if name == "gloo":
            if reason := gloo_missing():
                skipped.append(_skipped(label, reason, name))
            else:
                found.append(Library(label, "python", [*_RANK, "gloo", buffers], {}))
            continue
        try:
            mpi = _MPIS[name](ranks, folder)
        except MissingError as error:
            skipped.append(_skipped(label, str(error), name))
            continue
        if mpi.compiler is None:
            skipped.append(_skipped(f"{label}, C", "its C compiler or headers are not there", name))
        else:
            program = _compile(label, name, mpi)
            found.append(Library(label, "c", [program], mpi.environment, mpi.launcher))
        if reason := _mpi4py_missing(mpi):
            skipped.append(_skipped(f"{label}, Python", reason, "mpi4py"))
        else:
            environment = {**mpi.environment, **mpi.mpi4py}
            found.append(Library(label, "python", [*_RANK, "mpi4py", buffers], environment, mpi.launcher))
    return found, skipped


def _skipped(label: str, reason: str, name: str) -> str:
    return f"{label} is skipped: {reason}; this brings it: {INSTALL[name]}"


@functools.cache
def gloo_missing() -> str | None:
    """Why Gloo can't take part; `None` if it can."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    probe = "import torch.distributed as d; print(d.is_available() and d.is_gloo_available())"
    if said([sys.executable, "-c", probe]).strip().endswith("True"):
        return None
    return "this torch has no Gloo, or does not load"


def _mpi4py_missing(mpi: Mpi) -> str | None:
    if importlib.util.find_spec("mpi4py") is None:
        return "mpi4py is not installed"
    probe = "import mpi4py; mpi4py.rc.initialize = False; from mpi4py import MPI; print(MPI.get_vendor()[0])"
    vendor = said([sys.executable, "-c", probe], {**mpi.environment, **mpi.mpi4py}).strip()
    if vendor == mpi.vendor:
        return None
    speaks = f"speaks to {vendor}" if vendor and "\n" not in vendor else "does not load it"
    return f"this mpi4py {speaks}, the one from PyPI speaks to any MPI"


def _compile(label: str, name: str, mpi: Mpi) -> str:
    """The C program for an MPI, compiled at its first use and kept in the user's cache."""
    assert mpi.compiler is not None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "isobit" / "bench"
    source = _SOURCE.read_bytes()
    stamp = hashlib.sha256(source + repr((mpi.compiler, mpi.flags)).encode()).hexdigest()[:16]
    program = cache / f"{name}-{stamp}"
    if program.exists():
        return str(program)
    half_made = cache / f"{program.name}.{os.getpid()}"
    command = [*mpi.compiler, "-O2", str(_SOURCE), "-o", str(half_made), *mpi.flags]
    try:
        cache.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerError(f"{label}: the C program can't be compiled: {error}") from None
    if done.returncode != 0 or not half_made.exists():
        said_last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise PeerError(f"{label}: the C program can't be compiled: {said_last}")
    half_made.rename(program)
    return str(program)
