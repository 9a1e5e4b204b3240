"""The API reference: every public name is in it, with a docstring."""

import inspect
import subprocess
import sys
from pathlib import Path

import isobit


def test_every_public_name_and_method_has_a_docstring() -> None:
    for name in isobit.__all__:
        thing = getattr(isobit, name)
        if name.startswith("__"):
            continue
        assert inspect.getdoc(thing), name
        members = vars(thing).items() if inspect.isclass(thing) else ()
        for member, value in members:
            if not member.startswith("_") and callable(value):
                assert inspect.getdoc(value), f"{name}.{member}"


def test_the_reference_is_built_from_the_docstrings(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pdoc", "--output-directory", str(tmp_path), "isobit", "!isobit.reference"]
    subprocess.run([*command, "!isobit.cli", "!isobit.verify"], check=True, timeout=120)
    page = (tmp_path / "isobit.html").read_text()
    for name in isobit.__all__:
        assert name.startswith("__") or f'id="{name}"' in page, name
