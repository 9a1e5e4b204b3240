"""The documents tell the truth: their Python runs, their commands exist and work, their links lead somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Commands that set a machine up, that `make test` and `make lint` consist of, or that have tests of their own.
ELSEWHERE = re.compile(
    r"(git clone|cd|pip install|cargo (test|clippy|fmt|bench)|\.ci/run|\S+ -m isobit\.reference\.vectors)\b"
)


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    def file_name(self) -> str:
        """A block of code that begins with `# name.py` is that file."""
        first = re.match(r"# (\w+\.py)\b", self.text)
        return first[1] if first else "block.py"


def _blocks(*languages: str) -> list[Block]:
    return [
        Block(page, text[: match.start()].count("\n") + 1, match[1], match[2])
        for page in PAGES
        for text in [page.read_text()]
        for match in FENCE.finditer(text)
        if match[1] in languages
    ]


def _id(block: Block) -> str:
    return f"{block.page.name}:{block.line}"


def _run(arguments: list[str], folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{arguments}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("block", _blocks("python"), ids=_id)
def test_python_in_a_page_runs_on_a_world_of_one(block: Block, tmp_path: Path) -> None:
    (tmp_path / block.file_name()).write_text(block.text)
    _run([block.file_name()], tmp_path)


@pytest.mark.parametrize("block", _blocks("sh"), ids=_id)
def test_commands_in_a_page_work(block: Block, tmp_path: Path) -> None:
    for other in _blocks("python"):
        if other.page == block.page:
            (tmp_path / other.file_name()).write_text(other.text)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in block.text.splitlines():
        words = shlex.split(line, comments=True)
        if not words or ELSEWHERE.match(line):
            continue
        match words[0].removeprefix(".venv/bin/"), words[1:]:
            case "make", goals:
                assert {goal for goal in goals if "=" not in goal} <= targets, line
            case "isobit", arguments:
                in_root = any((ROOT / word).is_file() for word in arguments)
                _run(["-m", "isobit", *arguments], ROOT if in_root else tmp_path)
            case "python", arguments:
                in_root = any((ROOT / word).is_file() for word in arguments)
                _run(arguments, ROOT if in_root else tmp_path)
            case _:
                pytest.fail(f"no test runs `{line}`")


def test_the_first_program_of_the_readme_prints_one_digest_on_any_number_of_ranks(tmp_path: Path) -> None:
    program = next(block for block in _blocks("python") if block.page.name == "README.md")
    (tmp_path / "mean.py").write_text(program.text)
    outputs = [_run(["-m", "isobit", "run", "-n", str(ranks), "mean.py"], tmp_path) for ranks in (1, 2, 5)]
    assert len({output.split()[-1] for output in outputs}) == 1, outputs


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_links_in_a_page_lead_to_files_that_are_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_only_languages_that_a_test_looks_at_are_shown() -> None:
    languages = {match[1] for page in PAGES for match in FENCE.finditer(page.read_text())}
    assert languages <= {"python", "sh", "text", "rust", "toml"}
    assert {block.language for block in _blocks("python", "sh") if block.page.name == "README.md"} == {
        "python",
        "sh",
    }
