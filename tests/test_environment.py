"""Who this process is, as the launchers' variables say."""

from __future__ import annotations

import pytest
from isobit import Unavailable, environment, group
from isobit.environment import SOLO

TORCHRUN = {
    "RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "10.0.0.7",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "none",
}
SLURM = {
    "SLURM_PROCID": "2",
    "SLURM_NTASKS": "3",
    "SLURM_LOCALID": "2",
    "SLURM_JOB_ID": "77",
    "SLURM_STEP_ID": "0",
    "SLURM_NNODES": "1",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "0",
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "PMIX_NAMESPACE": "prterun-host-1234@1",
}
ISOBIT = {"ISOBIT_JOB": "a1b2", "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "5"}


def test_without_variables_the_world_is_this_process() -> None:
    assert environment.read({"PATH": "/bin", "HOME": "/"}) == SOLO


@pytest.mark.parametrize(
    ("variables", "rank", "world_size"), [(TORCHRUN, 1, 4), (SLURM, 2, 3), (OPEN_MPI, 0, 2), (ISOBIT, 5, 8)]
)
def test_each_launcher_says_who_a_rank_is(variables: dict[str, str], rank: int, world_size: int) -> None:
    world = environment.read(variables)
    assert (world.rank, world.world_size, world.local_rank) == (rank, world_size, rank)
    assert world.job


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        (TORCHRUN, "MASTER_PORT"),
        (TORCHRUN, "TORCHELASTIC_RUN_ID"),
        (SLURM, "SLURM_JOB_ID"),
        (SLURM, "SLURM_STEP_ID"),
        (OPEN_MPI, "PMIX_NAMESPACE"),
        (ISOBIT, "ISOBIT_JOB"),
    ],
)
def test_jobs_side_by_side_have_different_names(variables: dict[str, str], name: str) -> None:
    other = environment.read({**variables, name: "31"})
    assert other.job != environment.read(variables).job


def test_a_restarted_torchrun_job_is_another_one() -> None:
    again = {**TORCHRUN, "TORCHELASTIC_RESTART_COUNT": "1"}
    assert environment.read(again).job != environment.read(TORCHRUN).job


def test_ranks_of_one_job_agree_on_its_name() -> None:
    other = {**TORCHRUN, "RANK": "3", "LOCAL_RANK": "3"}
    assert environment.read(other).job == environment.read(TORCHRUN).job


def test_the_nearest_launcher_wins() -> None:
    everything = {**SLURM, **OPEN_MPI, **TORCHRUN, **ISOBIT}
    assert environment.read(everything).source == "isobit run"
    assert environment.read({**SLURM, **OPEN_MPI}).source == "Open MPI"
    assert environment.read({**SLURM, **TORCHRUN}).source == "RANK and WORLD_SIZE"


@pytest.mark.parametrize(
    "variables",
    [
        {**TORCHRUN, "LOCAL_WORLD_SIZE": "2"},
        {key: value for key, value in TORCHRUN.items() if key != "LOCAL_WORLD_SIZE"},
        {**SLURM, "SLURM_NNODES": "2"},
        {**OPEN_MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "1"},
    ],
)
def test_more_hosts_than_one_are_refused_with_the_reason(variables: dict[str, str]) -> None:
    with pytest.raises(Unavailable, match="more than one host is not there yet"):
        environment.read(variables)


def test_ranks_started_by_hand_on_this_host_need_no_local_world_size() -> None:
    by_hand = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1234"}
    assert environment.read(by_hand).world_size == 2
    with pytest.raises(ValueError, match="MASTER_PORT"):
        environment.read({"RANK": "1", "WORLD_SIZE": "2"})


def test_a_slurm_batch_script_is_no_rank() -> None:
    batch = {key: value for key, value in SLURM.items() if key != "SLURM_STEP_ID"}
    assert environment.read(batch) == SOLO


def test_a_step_on_one_node_of_a_larger_job_is_fine() -> None:
    step = {**SLURM, "SLURM_NNODES": "4", "SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_NUM_TASKS": "3"}
    assert environment.read(step).world_size == 3


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "0"}, "WORLD_SIZE is not set"),
        ({"WORLD_SIZE": "2"}, "RANK is not set"),
        ({**TORCHRUN, "RANK": "4"}, "rank 4 is none of a world of 4"),
        ({**TORCHRUN, "RANK": "-1"}, "RANK='-1'"),
        ({**TORCHRUN, "WORLD_SIZE": "two"}, "WORLD_SIZE='two'"),
        ({**ISOBIT, "WORLD_SIZE": "0"}, "world of 0"),
        ({"OMPI_COMM_WORLD_RANK": "0"}, "OMPI_COMM_WORLD_SIZE is not set"),
    ],
)
def test_variables_that_make_no_sense_are_named(variables: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        environment.read(variables)


def test_an_mpi_that_is_not_understood_is_not_taken_for_a_world_of_one() -> None:
    with pytest.raises(Unavailable, match="PMI_SIZE=4"):
        environment.read({"PMI_SIZE": "4", "PMI_RANK": "1"})


def test_the_transport_and_the_timeout_can_be_set_and_mistakes_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert group.init(transport="shm").world_size == 1
    with pytest.raises(ValueError, match="memory_group"):
        group.init(transport="memory")
    with pytest.raises(Unavailable, match="quic"):
        group.init(transport="quic")
    with pytest.raises(ValueError, match="none of auto, shm"):
        group.init(transport="carrier pigeon")
    monkeypatch.setenv("ISOBIT_TRANSPORT", "rdma")
    with pytest.raises(Unavailable, match="ISOBIT_TRANSPORT='rdma'"):
        group.init()
    assert group.init(transport="shm").rank == 0
    monkeypatch.delenv("ISOBIT_TRANSPORT")
    monkeypatch.setenv("ISOBIT_TIMEOUT", "soon")
    with pytest.raises(ValueError, match="ISOBIT_TIMEOUT='soon'"):
        group.init()
    monkeypatch.setenv("ISOBIT_TIMEOUT", "-1")
    with pytest.raises(ValueError, match="timeout=-1"):
        group.init()
