"""Breaks the library on purpose, in one way after another, and shows which test notices.

Each entry of `mutations.toml` is a mutation: a text in a source file, what to put in its place, and the test that
must fail then. The tree is copied to `target/mutations`, so that the working tree is never touched; what cargo built
there stays, so that a second run builds only what a mutation changes. A test must pass before it may prove anything.
The exit status is 1 if a mutation survives, does not build, hangs unasked, or no longer finds its text.

    .venv/bin/python tests/mutations/run.py --list
    .venv/bin/python tests/mutations/run.py --only swap-two-leaves
    .venv/bin/python tests/mutations/run.py --sample 4 --seed 7
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LIST = Path("tests/mutations/mutations.toml")
#: How long a build and a test may take, in seconds. Builds share their machine with whatever else runs there.
BUILD_LIMIT = 1800.0
TEST_LIMIT = 240.0

FOUND, SURVIVED, STALE, BROKEN = "found", "SURVIVED", "STALE", "BROKEN"


@dataclass(frozen=True)
class Mutation:
    """One way to break the library, and the test that notices."""

    name: str
    #: What would no longer hold.
    breaks: str
    file: str
    old: str
    new: str
    #: `path::name`, as in docs/guarantees.md. A Rust test's name is its function's, after a module if need be.
    test: str
    #: Whether sampling may pick it: it needs no build, or a short one.
    cheap: bool = False
    #: Whether the test may end by not ending, after so many seconds.
    hangs_after: float | None = None
    #: Words of /proc/cpuinfo without which the mutated code never runs.
    needs: tuple[str, ...] = ()

    def apply(self, text: str) -> str | None:
        """The mutated file; None if the text to replace is not there exactly once."""
        return text.replace(self.old, self.new) if text.count(self.old) == 1 and self.old != self.new else None


@dataclass(frozen=True)
class Outcome:
    """What one run of a test said."""

    #: `passed`, `failed`, `hung` or `broken`.
    kind: str
    #: The tests that failed, or what went wrong instead.
    detail: str


@dataclass(frozen=True)
class Verdict:
    """What became of a mutation."""

    mutation: Mutation
    kind: str
    detail: str
    seconds: float


def load(path: Path) -> list[Mutation]:
    """The mutations of a list."""
    entries = tomllib.loads(path.read_text())["mutation"]
    return [Mutation(**{**entry, "needs": tuple(entry.get("needs", ()))}) for entry in entries]


class Workshop:
    """A copy of the tree in which things may be broken."""

    def __init__(self, root: Path, work: Path) -> None:
        self._root = root
        self.tree = work / "tree"
        self._env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("ISOBIT_", "PYTEST_"))},
            "CARGO_TARGET_DIR": str(work / "build"),
            "CARGO_TERM_COLOR": "never",
            "PYTHONPATH": str(self.tree / "python"),
            # A file that is changed twice within a second could else be taken for its old bytecode.
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def copy(self) -> None:
        """Makes the copy what the working tree is; files that are equal stay untouched, so that builds are short."""
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=self._root,
            capture_output=True,
            check=True,
        ).stdout.decode()
        names = {name for name in listed.split("\0") if name and (self._root / name).is_file()}
        # The extension module as it was built last: Python's mutations need no other.
        names |= {path.relative_to(self._root).as_posix() for path in self._root.glob("python/isobit/_native*.so")}
        for path in [path for path in self.tree.rglob("*") if path.is_file()]:
            if path.relative_to(self.tree).as_posix() not in names:
                path.unlink()
        for name in sorted(names):
            source, target = self._root / name, self.tree / name
            data = source.read_bytes()
            if not target.is_file() or target.read_bytes() != data:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
                shutil.copymode(source, target)

    @contextlib.contextmanager
    def broken(self, mutation: Mutation) -> Iterator[bool]:
        """Applies a mutation for a while; whether it could be."""
        path = self.tree / mutation.file
        text = path.read_text() if path.is_file() else ""
        mutated = mutation.apply(text)
        if mutated is not None:
            path.write_text(mutated)
        try:
            yield mutated is not None
        finally:
            if mutated is not None:
                path.write_text(text)

    @contextlib.contextmanager
    def extension(self) -> Iterator[Outcome | None]:
        """Has Python use the extension module that the copy's Rust gives, for a while; or says why there is none."""
        # Unoptimised across crates, as cargo's tests are: most of it is there already.
        status, output = self._run(["cargo", "build", "--locked", "--package", "isobit-python"], BUILD_LIMIT)
        names = [path.relative_to(self._root) for path in self._root.glob("python/isobit/_native*.so")]
        if status != 0 or len(names) != 1:
            yield Outcome("broken", f"no extension module, of {len(names)}:\n{output[-4000:]}")
            return
        shutil.copyfile(Path(self._env["CARGO_TARGET_DIR"]) / "debug" / "lib_native.so", self.tree / names[0])
        try:
            yield None
        finally:
            shutil.copyfile(self._root / names[0], self.tree / names[0])

    def test(self, tests: Sequence[str], limit: float = TEST_LIMIT) -> Outcome:
        """Runs tests of one file."""
        return self._pytest(tests, limit) if tests[0].split("::")[0].endswith(".py") else self._cargo(tests, limit)

    def _run(self, command: list[str], limit: float) -> tuple[int | None, str]:
        """Exit status, None for a hang, and output. Ends whatever the command has started."""
        with subprocess.Popen(
            command,
            cwd=self.tree,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            process_group=0,
        ) as process:
            try:
                output, _ = process.communicate(timeout=limit)
                return process.returncode, output
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                return None, process.communicate()[0]
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise

    def _pytest(self, tests: Sequence[str], limit: float) -> Outcome:
        options = ["-q", "--tb=line", "-rf", "-p", "no:cacheprovider"]
        status, output = self._run([sys.executable, "-m", "pytest", *options, *tests], limit)
        failed = sorted(
            {match[1] for match in re.finditer(r"^FAILED (\S+?)(?:\[.*)?(?: - .*)?$", output, re.MULTILINE)}
        )
        return _outcome(status, output, failed, passed=status == 0, said_so=status == 1)

    def _cargo(self, tests: Sequence[str], limit: float) -> Outcome:
        path = Path(tests[0].split("::")[0])
        crate = Path(*path.parts[:2])
        package = tomllib.loads((self.tree / crate / "Cargo.toml").read_text())["package"]["name"]
        which = ["--test", path.stem] if path.parts[2] == "tests" else ["--lib"]
        command = ["cargo", "test", "--locked", "--package", package, *which]
        status, output = self._run([*command, "--no-run"], BUILD_LIMIT)
        if status != 0:
            return Outcome("broken", "it does not build:\n" + output[-4000:])
        names = [test.partition("::")[2] for test in tests]
        status, output = self._run([*command, "--", *names], limit)
        failed = re.findall(r"^test (\S+)(?: - should panic)? \.\.\. FAILED", output, re.MULTILINE)
        ran = re.search(r"^running [1-9]", output, re.MULTILINE) is not None
        # A test process that dies of a signal names nobody.
        said_so = status not in (None, 0) and (bool(failed) or "signal:" in output)
        return _outcome(
            status, output, failed or ["the test process died"], passed=status == 0 and ran, said_so=said_so
        )


def _outcome(status: int | None, output: str, failed: list[str], *, passed: bool, said_so: bool) -> Outcome:
    if status is None:
        return Outcome("hung", "hung")
    if passed:
        return Outcome("passed", "")
    return Outcome("failed", ", ".join(failed)) if said_so and failed else Outcome("broken", output[-4000:])


def judge(workshop: Workshop, mutation: Mutation) -> Verdict:
    """Breaks, tests, mends."""
    start = time.monotonic()
    with workshop.broken(mutation) as could_be:
        if not could_be:
            kind, detail = STALE, f"{mutation.file} has not exactly one place with the text to replace"
        else:
            # Rust that a Python test is to judge is the extension module's.
            binding = mutation.file.startswith("rust/") and mutation.test.split("::")[0].endswith(".py")
            with workshop.extension() if binding else contextlib.nullcontext() as trouble:
                outcome = trouble or workshop.test([mutation.test], mutation.hangs_after or TEST_LIMIT)
            kind, detail = {
                "passed": (SURVIVED, f"{mutation.test} passes"),
                "failed": (FOUND, outcome.detail),
                "hung": (FOUND, f"{mutation.test} does not end") if mutation.hangs_after else (BROKEN, "it hangs"),
                "broken": (BROKEN, outcome.detail),
            }[outcome.kind]
    return Verdict(mutation, kind, detail, time.monotonic() - start)


def sound(workshop: Workshop, mutations: Sequence[Mutation]) -> bool:
    """Whether the tests pass while nothing is broken."""
    by_file: dict[str, list[str]] = {}
    for mutation in mutations:
        tests = by_file.setdefault(mutation.test.split("::")[0], [])
        tests += [mutation.test] if mutation.test not in tests else []
    well = True
    for file, tests in by_file.items():
        outcome = workshop.test(tests)
        print(f"unbroken   {outcome.kind:<9} {file} ({len(tests)})", flush=True)
        if outcome.kind != "passed":
            print(outcome.detail, flush=True)
            well = False
    return well


def chosen(mutations: list[Mutation], arguments: argparse.Namespace) -> list[Mutation]:
    """The mutations that were asked for and that this processor can show."""
    if unknown := set(arguments.only) - {mutation.name for mutation in mutations}:
        raise SystemExit(f"no such mutation: {', '.join(sorted(unknown))}; --list names them")
    if arguments.only:
        mutations = [mutation for mutation in mutations if mutation.name in arguments.only]
    cpuinfo = Path("/proc/cpuinfo")
    words = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    for mutation in [mutation for mutation in mutations if not words.issuperset(mutation.needs)]:
        print(f"not here   {mutation.name}: it needs a processor with {' '.join(mutation.needs)}")
        mutations.remove(mutation)
    if arguments.sample is not None:
        cheap = [mutation for mutation in mutations if mutation.cheap]
        seed = arguments.seed if arguments.seed is not None else random.randrange(10**6)
        print(f"sample of {arguments.sample} of {len(cheap)} cheap ones of {len(mutations)}: --seed {seed}")
        picked = random.Random(seed).sample(cheap, min(arguments.sample, len(cheap)))
        mutations = [mutation for mutation in mutations if mutation in picked]
    return mutations


def try_all(workshop: Workshop, mutations: Sequence[Mutation]) -> bool:
    """Tries each mutation and prints a table; whether every one was found."""
    workshop.copy()
    if not sound(workshop, mutations):
        print("A test fails though nothing is broken, so it proves nothing: mend that first.")
        return False
    verdicts = []
    for number, mutation in enumerate(mutations, start=1):
        print(f"{number:>3}/{len(mutations):<3}    {mutation.name}: {mutation.breaks}", flush=True)
        verdict = judge(workshop, mutation)
        print(f"           {verdict.kind} in {verdict.seconds:.0f} s: {verdict.detail}", flush=True)
        verdicts.append(verdict)
    width = max(len(mutation.name) for mutation in mutations)
    print()
    for verdict in verdicts:
        detail = verdict.detail if verdict.kind == FOUND else verdict.detail.splitlines()[0]
        print(f"{verdict.mutation.name:<{width}}  {verdict.kind:<8}  {verdict.seconds:5.0f} s  {detail}")
    count = {kind: sum(verdict.kind == kind for verdict in verdicts) for kind in (FOUND, SURVIVED, STALE, BROKEN)}
    print(f"{len(verdicts)} mutations: " + ", ".join(f"{count[kind]} {kind.lower()}" for kind in count))
    return count[FOUND] == len(verdicts)


def main(words: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Breaks the library on purpose and shows which test notices.")
    parser.add_argument("--list", action="store_true", help="say what there is, and try nothing")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="try this one; may be repeated")
    parser.add_argument("--sample", type=int, metavar="K", help="try K cheap ones")
    parser.add_argument("--seed", type=int, help="which ones --sample picks; random unless given")
    parser.add_argument("--work", type=Path, default=ROOT / "target" / "mutations", help="the folder for the copy")
    arguments = parser.parse_args(words)
    mutations = load(ROOT / LIST)
    if arguments.list:
        for one in mutations:
            print(f"{one.name}\n    breaks: {one.breaks}\n    file:   {one.file}\n    test:   {one.test}")
        return 0
    mutations = chosen(mutations, arguments)
    # So that whoever ends this ends what it has started, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    arguments.work.mkdir(parents=True, exist_ok=True)
    with (arguments.work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"another run works in {arguments.work}: wait for it, or give --work") from None
        return 0 if try_all(Workshop(ROOT, arguments.work.resolve()), mutations) else 1


if __name__ == "__main__":
    sys.exit(main())
