"""The list of mutations fits the tree, and the script that tries them knows a survivor when it meets one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from mutations.run import BROKEN, FOUND, LIST, ROOT, STALE, SURVIVED, Mutation, Workshop, judge, load

MUTATIONS = load(ROOT / LIST)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_the_text_that_a_mutation_replaces_is_there_once(mutation: Mutation) -> None:
    count = (ROOT / mutation.file).read_text().count(mutation.old)
    assert count == 1, f"{mutation.file} has it {count} times: bring tests/mutations/mutations.toml up to date"


def test_every_mutation_has_its_own_name() -> None:
    names = [mutation.name for mutation in MUTATIONS]
    assert sorted(set(names)) == sorted(names)


def _mutation(old: str = "1", new: str = "2", test: str = "test_one") -> Mutation:
    return Mutation("example", "one is one", "python/thing.py", old, new, f"tests/test_thing.py::{test}")


@pytest.mark.parametrize(
    ("mutation", "verdict", "detail"),
    [
        (_mutation(), FOUND, "tests/test_thing.py::test_one"),
        (_mutation(test="test_nothing"), SURVIVED, "passes"),
        (_mutation(old="3"), STALE, "not exactly one place"),
        (_mutation(old="E"), STALE, "not exactly one place"),
        (_mutation(new="1 +"), BROKEN, "SyntaxError"),
        (_mutation(test="test_that_is_not_there"), BROKEN, "not found"),
    ],
    ids=["found", "survived", "gone", "twice", "no-code", "no-test"],
)
def test_a_mutation_is_found_only_if_its_test_fails(
    mutation: Mutation, verdict: str, detail: str, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    files = {
        "python/thing.py": "ONE = 1\nTHREE = None\n",
        "tests/test_thing.py": "import thing\n\ndef test_one():\n    assert thing.ONE == 1\n\n"
        "def test_nothing():\n    pass\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    workshop = Workshop(root, tmp_path / "work")
    workshop.copy()
    found = judge(workshop, mutation)
    assert found.kind == verdict, found
    assert detail in found.detail
    assert (root / "python/thing.py").read_text() == files["python/thing.py"]
    assert (workshop.tree / "python/thing.py").read_text() == files["python/thing.py"]
