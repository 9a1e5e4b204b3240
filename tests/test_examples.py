"""The examples in short: each prints one digest, on every rank and on every number of ranks that it names."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"


def outputs(example: str, *options: str, ranks: tuple[int, ...]) -> list[str]:
    """What an example prints under the launcher, on each of those numbers of ranks."""
    found = []
    for count in ranks:
        command = [sys.executable, "-m", "isobit", "run", "-n", str(count), str(EXAMPLES / example), *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stdout + done.stderr
        digests = re.findall(r"digest (\w{16})$", done.stdout, re.MULTILINE)
        assert len(digests) == count, done.stdout
        found.append(done.stdout)
    return found


def digests(example: str, *options: str, ranks: tuple[int, ...]) -> set[str]:
    """The digests that an example prints."""
    return set(re.findall(r"digest (\w+)", "".join(outputs(example, *options, ranks=ranks))))


def test_the_table_of_examples_names_each_file_and_no_other() -> None:
    linked = set(re.findall(r"\]\(([\w/.]+)\)", (EXAMPLES / "README.md").read_text()))
    assert linked == {file.name for file in EXAMPLES.glob("*.py")} | {"digits/"}


def test_data_parallel_training_is_the_same_on_any_number_of_ranks() -> None:
    (short,) = digests("data_parallel.py", "--epochs=3", ranks=(1, 2, 3, 5))
    assert digests("data_parallel.py", "--epochs=4", ranks=(1,)) != {short}


def test_a_sharded_optimizer_gives_the_bits_of_the_replicated_one_on_any_number_of_ranks() -> None:
    sharded = digests("sharded_optimizer.py", "--steps=20", ranks=(1, 2, 3, 4, 5))
    replicated = digests("sharded_optimizer.py", "--steps=20", "--replicated", ranks=(1, 3))
    assert len(sharded | replicated) == 1


def test_a_sharded_optimizer_keeps_a_share_of_the_moments() -> None:
    (output,) = outputs("sharded_optimizer.py", "--steps=1", ranks=(3,))
    assert output.count("this rank keeps 12288 bytes of moments") == 3


def test_experts_on_any_number_of_ranks_learn_the_same() -> None:
    (short,) = digests("expert_parallel.py", "--steps=20", ranks=(1, 2, 3, 4, 8))
    assert digests("expert_parallel.py", "--steps=21", ranks=(1,)) != {short}


def test_experts_get_uneven_numbers_of_tokens() -> None:
    (output,) = outputs("expert_parallel.py", "--steps=1", ranks=(4,))
    rows = [int(number) for number in re.findall(r"they got (\d+) rows", output)]
    assert sum(rows) == 480
    assert len(set(rows)) == 4


def test_sequence_parallelism_on_gives_the_bits_of_off_on_any_number_of_ranks() -> None:
    on = digests("sequence_parallel.py", "--steps=10", ranks=(1, 2, 3, 5))
    off = digests("sequence_parallel.py", "--steps=10", "--off", ranks=(1, 3))
    assert len(on | off) == 1


def test_sequence_parallelism_splits_the_work_on_positions() -> None:
    (output,) = outputs("sequence_parallel.py", "--steps=1", ranks=(4,))
    assert output.count("norms and dropout for 12 of 48 positions") == 4


def test_a_jax_step_with_callbacks_is_the_same_on_any_number_of_ranks() -> None:
    assert len(digests("jax_callbacks.py", "--steps=3", ranks=(1, 3))) == 1
