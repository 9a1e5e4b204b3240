"""An Open MPI that is none: a launcher, a compiler and a rank that do what a test of `isobit bench` wants.

The rank speaks the driver's lines, and its behaviour is a word in the environment.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

LAUNCHER = """\
#!/bin/sh
case "$*" in
*--version*) echo "mpirun (Open MPI) 4.1.4" ;;
*) exec {python} {here} launch "$@" ;;
esac
"""
COMPILER = """\
#!/bin/sh
case "$1" in
-show) echo "gcc -lopenmpi" ;;
*) printf '#!/bin/sh\\nexec {python} {here} rank\\n' > "$4" && chmod +x "$4" ;;
esac
"""


def install(folder: Path, behaviour: str) -> dict[str, str]:
    """Puts the fakes into a folder, and gives what the environment has to say for them to be found."""
    programs = folder / "bin"
    (folder / "modules" / "mpi4py").mkdir(parents=True)
    (folder / "modules" / "mpi4py" / "__init__.py").write_text("raise ImportError('this one is broken')\n")
    programs.mkdir()
    for name, text in (("mpirun.openmpi", LAUNCHER), ("mpicc.openmpi", COMPILER), ("cc", "#!/bin/sh\n")):
        (programs / name).write_text(text.format(python=sys.executable, here=__file__))
        (programs / name).chmod(0o755)
    return {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(folder / "modules"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "FAKE": behaviour,
    }


def _launch(words: list[str]) -> int:
    import subprocess

    if os.environ["FAKE"] == "ends at its start":
        print("There is no such machine.", file=sys.stderr)
        return 7
    count, program = int(words[words.index("-n") + 1]), words[-1]
    starts = [{**os.environ, "FAKE_RANK": str(rank), "FAKE_RANKS": str(count)} for rank in range(count)]
    ranks = [subprocess.Popen([program], env=environment) for environment in starts]
    return max(rank.wait() for rank in ranks)


def _rank() -> int:
    import socket

    behaviour = os.environ["FAKE"]
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.environ["ISOBIT_BENCH_SOCKET"])
    requests, answers = connection.makefile("r"), connection.makefile("w")
    if behaviour != "hangs at its start":
        who = f"{os.environ['FAKE_RANK']} {os.environ['FAKE_RANKS']} {os.getpid()}"
        print("hello fake", who, "Fake MPI 1.0", file=answers, flush=True)
    for line in requests:
        words = line.split()
        if words[0] == "end" and behaviour != "does not end":
            return 0
        if words[0] == "run" and behaviour == "dies":
            os._exit(3)
        if words[0] == "run" and behaviour != "hangs":
            wrong = 5 if behaviour == "is wrong" else 0
            print("done", wrong, *["1000"] * int(words[5]), file=answers, flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(_launch(sys.argv[2:]) if sys.argv[1] == "launch" else _rank())
