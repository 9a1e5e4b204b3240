"""Who this process is among its peers, as the launcher that started it says.

Four families of variables are understood, the most specific first: isobit's own launcher,
Open MPI's, torchrun's (also set by hand), Slurm's. With none of them the world is this process
alone. Everything here is a pure function of a mapping, so that it can be tested without processes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from isobit.errors import Unavailable

MORE_HOSTS = (
    "more than one host is not there yet: this release joins the processes of one host over shared memory. "
    "Start all ranks on one host"
)


class World(NamedTuple):
    """A process's place: its numbers, and the name under which its peers find each other."""

    rank: int
    world_size: int
    local_rank: int
    job: str
    #: Which variables said so, for messages.
    source: str


SOLO = World(rank=0, world_size=1, local_rank=0, job="", source="no launcher")


def read(environ: Mapping[str, str]) -> World:
    """The world that `environ` describes.

    Raises `ValueError` where variables are missing or contradict each other, and
    `isobit.Unavailable` where they describe more than one host.

    >>> read({}) == SOLO
    True
    >>> read({"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}).rank
    1
    """
    if "ISOBIT_JOB" in environ:
        world = _isobit(environ)
    elif "OMPI_COMM_WORLD_RANK" in environ or "OMPI_COMM_WORLD_SIZE" in environ:
        world = _open_mpi(environ)
    elif "RANK" in environ or "WORLD_SIZE" in environ:
        world = _torchrun(environ)
    elif "SLURM_STEP_ID" in environ:
        # A batch script has SLURM_PROCID too, but only what srun starts is a rank, and has a step.
        world = _slurm(environ)
    elif _number(environ, "PMI_SIZE", 1) > 1:
        raise Unavailable(
            f"PMI_SIZE={environ['PMI_SIZE']}: MPICH's and Intel MPI's launchers are not supported; "
            "use isobit run, torchrun, srun or Open MPI's mpirun"
        )
    else:
        return SOLO
    if not 0 <= world.rank < world.world_size:
        raise ValueError(f"{world.source}: rank {world.rank} is none of a world of {world.world_size}")
    return world


def _isobit(environ: Mapping[str, str]) -> World:
    return World(
        rank=_number(environ, "RANK"),
        world_size=_number(environ, "WORLD_SIZE"),
        local_rank=_number(environ, "LOCAL_RANK"),
        job=environ["ISOBIT_JOB"],
        source="isobit run",
    )


def _torchrun(environ: Mapping[str, str]) -> World:
    rank, world_size = _number(environ, "RANK"), _number(environ, "WORLD_SIZE")
    address, port = environ.get("MASTER_ADDR", "localhost"), environ.get("MASTER_PORT", "")
    if "LOCAL_WORLD_SIZE" in environ:
        one_host = _number(environ, "LOCAL_WORLD_SIZE") == world_size
    else:
        one_host = world_size == 1 or _is_this_host(address)
    if not one_host:
        local = environ.get("LOCAL_WORLD_SIZE", "unset")
        raise Unavailable(f"WORLD_SIZE={world_size}, LOCAL_WORLD_SIZE={local}, MASTER_ADDR={address}: {MORE_HOSTS}")
    if world_size > 1 and not port:
        raise ValueError("MASTER_PORT is not set: give all ranks of one group the same free port number")
    attempt = environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return World(
        rank=rank,
        world_size=world_size,
        local_rank=_number(environ, "LOCAL_RANK", rank),
        job=f"torchrun-{environ.get('TORCHELASTIC_RUN_ID', 'none')}-{address}-{port}-{attempt}",
        source="RANK and WORLD_SIZE",
    )


def _open_mpi(environ: Mapping[str, str]) -> World:
    rank, world_size = _number(environ, "OMPI_COMM_WORLD_RANK"), _number(environ, "OMPI_COMM_WORLD_SIZE")
    local_size = _number(environ, "OMPI_COMM_WORLD_LOCAL_SIZE", world_size)
    if local_size != world_size:
        raise Unavailable(f"Open MPI started {local_size} of {world_size} ranks on this host: {MORE_HOSTS}")
    job = environ.get("PMIX_NAMESPACE") or environ.get("OMPI_MCA_ess_base_jobid")
    if not job and world_size > 1:
        raise ValueError("PMIX_NAMESPACE is not set: Open MPI's mpirun sets it for the processes it starts")
    return World(
        rank=rank,
        world_size=world_size,
        local_rank=_number(environ, "OMPI_COMM_WORLD_LOCAL_RANK", rank),
        job=f"openmpi-{job}",
        source="Open MPI",
    )


def _slurm(environ: Mapping[str, str]) -> World:
    rank = _number(environ, "SLURM_PROCID")
    world_size = _number(environ, "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environ else "SLURM_NTASKS")
    nodes = _number(environ, "SLURM_STEP_NUM_NODES" if "SLURM_STEP_NUM_NODES" in environ else "SLURM_NNODES", 1)
    if nodes > 1 and world_size > 1:
        raise Unavailable(f"Slurm started this step on {nodes} nodes: {MORE_HOSTS}")
    job, step = environ.get("SLURM_JOB_ID", ""), environ["SLURM_STEP_ID"]
    if not job and world_size > 1:
        raise ValueError("SLURM_JOB_ID is not set: srun sets it for the processes it starts")
    return World(
        rank=rank,
        world_size=world_size,
        local_rank=_number(environ, "SLURM_LOCALID", rank),
        job=f"slurm-{job}-{step}",
        source="Slurm",
    )


def _number(environ: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environ.get(name)
    if text is None:
        if default is None:
            raise ValueError(f"{name} is not set, but its fellow variables are: set all of them, or none to run alone")
        return default
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"{name}={text!r} must be an integer, 0 or more")
    return int(text)


def _is_this_host(address: str) -> bool:
    return address in ("localhost", "::1", os.uname().nodename) or address.startswith("127.")
