"""The page for those who come from other libraries: its code runs on several ranks, and its names exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import isobit
import pytest

PAGE = (Path(__file__).parent.parent / "docs" / "coming-from.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("block", range(len(BLOCKS)))
def test_the_code_of_the_page_runs_on_any_number_of_ranks(block: int, ranks: int, tmp_path: Path) -> None:
    (tmp_path / "page.py").write_text(BLOCKS[block])
    command = [sys.executable, "-m", "isobit", "run", "-n", str(ranks), "page.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_names_of_the_page_exist_as_methods_and_as_functions() -> None:
    names = set(re.findall(r"`comm\.(\w+)\(", PAGE))
    assert len(names) > 15
    for name in names:
        assert callable(getattr(isobit.Communicator, name))
        assert name == "close" or callable(getattr(isobit, name))
