"""Joining a group ends when the user wants it to, and leaves nothing behind."""

from __future__ import annotations

import os
import secrets
import signal
import threading

import isobit
import pytest


@pytest.mark.parametrize("rank", [0, 1])
def test_ctrl_c_ends_init_and_nothing_goes_on_in_the_background(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {
        "RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_RANK": str(rank),
        "ISOBIT_JOB": f"test-{secrets.token_hex(8)}",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    before = _held()
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        isobit.init(timeout=60)
    timer.join()
    assert _held() == before


def _held() -> tuple[int, int]:
    """How many threads and open files this process has."""
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))
