"""Every Rust dependency has a permissive licence; this list is the policy."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
PERMISSIVE = {
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
}


def is_permissive(expression: str) -> bool:
    """Whether an SPDX expression offers a choice of which every part is permissive."""
    plain = expression.replace("(", "").replace(")", "").replace("/", " OR ")
    if " AND " in plain and "(" in expression:
        # `(A OR B) AND C`: every factor has to offer a choice.
        return all(is_permissive(factor.strip("() ")) for factor in expression.split(" AND "))
    choices = (choice.split(" AND ") for choice in plain.split(" OR "))
    return any(all(part.strip() in PERMISSIVE for part in choice) for choice in choices)


def test_every_rust_dependency_is_permissive() -> None:
    command = ["cargo", "metadata", "--locked", "--format-version=1", "--filter-platform=x86_64-unknown-linux-gnu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    packages = json.loads(done.stdout)["packages"]
    assert packages
    licences = {f"{package['name']} {package['version']}": package["license"] or "" for package in packages}
    assert {name: licence for name, licence in licences.items() if not is_permissive(licence)} == {}


def test_a_licence_that_demands_more_is_refused() -> None:
    assert is_permissive("MIT OR GPL-3.0")
    assert is_permissive("MIT/Apache-2.0")
    assert is_permissive("(MIT OR Apache-2.0) AND Unicode-3.0")
    assert not is_permissive("(MIT OR Apache-2.0) AND GPL-3.0")
    assert not is_permissive("MPL-2.0")
    assert not is_permissive("")
