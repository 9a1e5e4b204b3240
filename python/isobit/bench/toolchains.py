"""The MPIs that this machine may have: how each starts ranks, compiles C, and is found by mpi4py."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

#: Seconds for a compiler, or for a program that only says its version.
PATIENCE = 60


class MissingError(Exception):
    """Something is not installed; the text says what."""


@dataclass(frozen=True)
class Mpi:
    """One MPI of this machine, for a group of a certain size."""

    launcher: Sequence[str]
    environment: Mapping[str, str]
    #: What makes mpi4py's wheel load this MPI and no other.
    mpi4py: Mapping[str, str]
    #: What mpi4py calls it.
    vendor: str
    #: A compiler, and what follows the names of the source and of the program.
    compiler: Sequence[str] | None
    flags: Sequence[str] = field(default=())


def open_mpi(ranks: int, folder: Path) -> Mpi:
    """Open MPI. More ranks than cores yield when they wait."""
    del folder
    launcher = [_command(("mpirun.openmpi", "mpirun"), "Open MPI|OpenRTE")]
    if os.geteuid() == 0:
        # As in a container, where there is no other user.
        launcher.append("--allow-run-as-root")
    if is_oversubscribed(ranks):
        launcher += ["--oversubscribe", "--mca", "mpi_yield_when_idle", "1"]
    mpi4py = {"MPI4PY_MPIABI": "openmpi", "MPI4PY_LIBMPI": "libmpi.so.40"}
    return Mpi(launcher, {}, mpi4py, "Open MPI", _compiler(("mpicc.openmpi", "mpicc"), "openmpi|open-mpi"))


def mpich(ranks: int, folder: Path) -> Mpi:
    """MPICH. More ranks than cores yield at every poll."""
    launcher = _command(("mpirun.mpich", "mpirun"), r"HYDRA(.|\n)*--with-device=ch")
    environment = {"MPIR_CVAR_POLLS_BEFORE_YIELD": "1"} if is_oversubscribed(ranks) else {}
    compiler = _compiler(("mpicc.mpich", "mpicc"), "lmpich?|mpich")
    return Mpi([launcher], environment, _mpich_for_mpi4py(folder), "MPICH", compiler)


def intel_mpi(ranks: int, folder: Path) -> Mpi:
    """Intel MPI, as `pip install impi-rt` or `I_MPI_ROOT` brings it."""
    del folder
    for root in (sys.prefix, os.environ.get("I_MPI_ROOT", "")):
        prefix = Path(root)
        # Not its mpirun: that starts whatever mpiexec.hydra is first in PATH, which may be MPICH's.
        launcher, library = prefix / "bin/mpiexec.hydra", prefix / "lib/libmpi.so.12"
        if root and launcher.exists() and library.exists():
            break
    else:
        raise MissingError("there is no Intel MPI in this environment")
    environment = {
        "I_MPI_ROOT": str(prefix),
        "I_MPI_FABRICS": "shm",
        "I_MPI_HYDRA_BOOTSTRAP": "fork",
        "LD_LIBRARY_PATH": _first_of_path(library.parent),
    }
    if is_oversubscribed(ranks):
        environment |= {"I_MPI_THREAD_YIELD": "2", "I_MPI_PAUSE_COUNT": "0"}
    compiler = shutil.which("cc") if (prefix / "include/mpi.h").exists() else None
    flags = [f"-I{prefix}/include", f"-L{prefix}/lib", f"-Wl,-rpath,{prefix}/lib", "-lmpi"]
    mpi4py = {"MPI4PY_MPIABI": "mpich", "MPI4PY_LIBMPI": str(library)}
    return Mpi([str(launcher)], environment, mpi4py, "Intel MPI", [compiler] if compiler else None, flags)


def is_oversubscribed(ranks: int) -> bool:
    """Whether there are more ranks than cores for this process."""
    return ranks > len(os.sched_getaffinity(0))


def said(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """What a program prints, or nothing if it can't be run."""
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr


@functools.cache
def _command(names: tuple[str, ...], version: str) -> str:
    for name in names:
        if (found := shutil.which(name)) and re.search(version, said([found, "--version"])):
            return found
    raise MissingError(f"there is no {names[0]}")


@functools.cache
def _compiler(names: tuple[str, ...], of: str) -> list[str] | None:
    for name in names:
        if (found := shutil.which(name)) and shutil.which("cc") and re.search(of, said([found, "-show"])):
            return [found]
    return None


def _mpich_for_mpi4py(folder: Path) -> dict[str, str]:
    """mpi4py's wheel looks for MPICH by the name that MPICH's own packages give it, and Debian's do not."""
    for line in said(["/sbin/ldconfig", "-p"]).splitlines():
        if line.strip().startswith("libmpich.so.12 "):
            name = folder / "mpich" / "libmpi.so.12"
            name.parent.mkdir(exist_ok=True)
            if not name.is_symlink():
                name.symlink_to(line.rpartition("=> ")[2])
            return {
                "MPI4PY_MPIABI": "mpich",
                "MPI4PY_LIBMPI": str(name),
                "LD_LIBRARY_PATH": _first_of_path(name.parent),
            }
    return {"MPI4PY_MPIABI": "mpich"}


def _first_of_path(folder: Path) -> str:
    return ":".join([str(folder), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])])
