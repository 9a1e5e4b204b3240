"""What this project asks of every source file, checked: a purpose on top, a readable size, danger in its place."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("rust", "python", "tests", "examples", "benches")
CODE_LINES_MAX = 400
UNSAFE_ALLOWED = re.compile(r"rust/(sys/|python/src/(buffer\.rs$|raw/))")
FORBIDDEN_IMPORTS = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX)\b|#\[ignore|mark\.skip\b|mark\.xfail|unimplemented!|todo!\(")


def _files(*suffixes: str) -> list[Path]:
    found = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in suffixes)
    return sorted(path for path in found if "target" not in path.relative_to(ROOT).parts and path.is_file())


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def says_what_it_is_for(name: str, text: str) -> bool:
    """Whether a file opens with its purpose: a docstring, or a module comment."""
    if name.endswith((".py", ".pyi")):
        return bool(ast.get_docstring(ast.parse(text)))
    if name.endswith(".rs"):
        return text.startswith("//! ") and "placeholder" not in text.splitlines()[0]
    return text.startswith("# ")


def code_lines(text: str) -> int:
    """How long a file is; what explains it is free."""
    return sum(not re.match(r"\s*(//|#(?!\[)|$)", line) for line in text.splitlines())


def unsafe_lines(text: str) -> list[int]:
    """Lines of Rust code that say `unsafe`; comments and the names of lints do not count."""
    code = (line.split("//")[0] for line in text.splitlines())
    return [number for number, line in enumerate(code, start=1) if re.search(r"\bunsafe\b", line)]


def dangerous_names(text: str) -> Iterator[str]:
    """What Python code imports or calls that could run data as code."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names if alias.name.split(".")[0] in FORBIDDEN_IMPORTS)
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in FORBIDDEN_IMPORTS:
                yield module
            case ast.Call(func=ast.Name(id=function)) if function in FORBIDDEN_CALLS:
                yield function
            case ast.keyword(arg="allow_pickle", value=ast.Constant(value=value)) if value is not False:
                yield "allow_pickle"


@pytest.mark.parametrize("path", _files(".rs", ".py", ".pyi", ".toml"), ids=_name)
def test_a_file_opens_with_what_it_is_for(path: Path) -> None:
    assert says_what_it_is_for(path.name, path.read_text()), f"{_name(path)} does not say what it is for"


@pytest.mark.parametrize("path", _files(".rs", ".py", ".pyi"), ids=_name)
def test_a_file_can_be_read_in_one_sitting(path: Path) -> None:
    lines = code_lines(path.read_text())
    assert lines <= CODE_LINES_MAX, f"{_name(path)} has {lines} lines of code: split it along its ideas"


def test_unsafe_code_is_in_sys_and_in_the_python_buffers_only() -> None:
    outside = [path for path in _files(".rs") if not UNSAFE_ALLOWED.match(_name(path))]
    assert {_name(path): lines for path in outside if (lines := unsafe_lines(path.read_text()))} == {}


def test_the_package_runs_no_data_as_code() -> None:
    package = [path for path in _files(".py") if _name(path).startswith("python/isobit/")]
    assert package
    assert {_name(path): names for path in package if (names := [*dangerous_names(path.read_text())])} == {}


def test_nothing_is_left_for_later() -> None:
    files = [path for path in _files(".rs", ".py", ".pyi", ".toml") if path != Path(__file__)]
    assert {_name(path) for path in files if UNFINISHED.search(path.read_text())} == set()


def test_a_crate_depends_on_the_layers_below_it_only() -> None:
    below = {"core": set(), "sys": {"core"}, "runtime": {"core", "sys"}, "python": {"core", "sys", ""}}
    for crate, allowed in below.items():
        manifest = (ROOT / "rust" / crate / "Cargo.toml").read_text()
        used = set(re.findall(r"^isobit(?:-(\w+))?[\s.=]", manifest, re.MULTILINE))
        assert used <= allowed, f"rust/{crate} depends on {used - allowed}"


def test_the_rules_find_what_they_forbid() -> None:
    assert not says_what_it_is_for("a.py", "import os\n")
    assert not says_what_it_is_for("a.rs", "use std::fmt;\n")
    assert code_lines("//! Why.\n\n#[test]\nfn f() {}  // so\n# no\n") == 2
    assert unsafe_lines("fn f() {\n    unsafe { g() }\n}\n") == [2]
    assert unsafe_lines("#![forbid(unsafe_code)]\n// unsafe would be wrong here\n") == []
    code = "import pickle\nfrom marshal import loads\neval('1')\nload('a', allow_pickle=True)\n"
    assert sorted(dangerous_names(code)) == ["allow_pickle", "eval", "marshal", "pickle"]
    assert [*dangerous_names("import numpy\nnumpy.load('a', allow_pickle=False)\n")] == []
    assert UNFINISHED.search("# TODO: later")
