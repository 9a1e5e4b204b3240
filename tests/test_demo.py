"""The main job in small: the digits training on 1, 2 and 3 ranks, with isobit and the usual way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

DIGITS = Path(__file__).parent.parent / "examples" / "digits"


def _output(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _digests(*options: str) -> set[str]:
    """The digests of the weights after a short training on 1, 2 and 3 ranks."""
    script = [str(DIGITS / "train.py"), "--steps=12", *options]
    outputs = [_output("-m", "isobit", "run", "-n", str(ranks), *script) for ranks in (1, 2, 3)]
    return {json.loads(output[output.index("{") : output.index("}") + 1])["sha256"] for output in outputs}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digits in a file, so that the ranks need not import scikit-learn."""
    file = tmp_path_factory.mktemp("digits") / "digits.npz"
    _output(str(DIGITS / "data.py"), str(file))
    return f"--data={file}"


def test_isobit_trains_the_same_weights_on_any_number_of_ranks(data: str) -> None:
    assert len(_digests(data)) == 1


def test_the_usual_way_trains_other_weights_on_each_number_of_ranks(data: str) -> None:
    assert len(_digests(data, "--usual")) == 3


def test_the_demo_prints_a_table_and_draws_its_picture(tmp_path: Path) -> None:
    picture = tmp_path / "demo.png"
    output = _output(str(DIGITS / "demo.py"), "--steps=6", "--ranks", "1", "2", f"--picture={picture}")
    assert "isobit: 1 digest on 2 world sizes; the usual way: 2 digests." in output
    assert picture.read_bytes().startswith(b"\x89PNG")
