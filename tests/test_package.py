"""The package itself: what its import costs, and that the stub says what the extension module has."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import isobit
from isobit import _native


def test_the_import_loads_nothing_that_it_does_not_need() -> None:
    code = (
        "import sys, numpy; before = set(sys.modules); import isobit; "
        "print(*sorted(name.partition('.')[0] for name in set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"isobit", "__future__", "atexit"}


def stub_signatures() -> dict[str, list[str]]:
    source = Path(isobit.__file__).with_name("_native.pyi").read_text()
    found: dict[str, list[str]] = {}

    def note(prefix: str, body: list[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef):
                found[prefix + node.name] = []
                note(f"{prefix}{node.name}.", node.body)
            elif isinstance(node, ast.FunctionDef):
                found[prefix + node.name] = [argument.arg for argument in [*node.args.args, *node.args.kwonlyargs]]
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found[prefix + node.target.id] = []

    note("", ast.parse(source).body)
    return found


def native_signatures() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}

    def note(prefix: str, owner: Any) -> None:
        for name, value in vars(owner).items():
            if name.startswith("__") and name != "__version__":
                continue
            found[prefix + name] = []
            if inspect.isclass(value):
                if value is not _native.NeedsCopy:
                    note(f"{prefix}{name}.", value)
            elif inspect.isgetsetdescriptor(value):
                found[prefix + name] = ["self"]
            elif callable(value) or isinstance(value, staticmethod):
                callable_value = value.__func__ if isinstance(value, staticmethod) else value
                found[prefix + name] = list(inspect.signature(callable_value).parameters)

    note("", _native)
    return found


def test_the_stub_says_what_the_extension_module_has() -> None:
    assert stub_signatures() == native_signatures()


def test_every_public_name_is_documented() -> None:
    for name in isobit.__all__:
        if name == "__version__":
            continue
        value = getattr(isobit, name)
        assert value.__doc__, name
        if inspect.isclass(value):
            for member, attribute in vars(value).items():
                if not member.startswith("_") and (inspect.isfunction(attribute) or isinstance(attribute, property)):
                    assert attribute.__doc__, f"{name}.{member}"
