#!/bin/sh
# Installs a peer of `isobit bench --peers` for the Python that is first in PATH: install.sh PEER, or -n PEER to only
# say how. On Debian; apt-get wants root. torch from PyPI brings several GB of CUDA: Debian's python3-torch is smaller,
# and needs the system's Python (make .venv-torch/tools).
set -eu
say=false
[ "${1:-}" != "-n" ] || { say=true && shift; }
case "${1:-}" in
    gloo) command="pip install torch" ;;
    openmpi) command="apt-get install -y --no-install-recommends openmpi-bin libopenmpi-dev gcc" ;;
    mpich) command="apt-get install -y --no-install-recommends mpich libmpich-dev gcc" ;;
    intelmpi) command="pip install impi-rt impi-devel" ;;
    mpi4py) command="pip install mpi4py" ;;
    rust) command="cargo build --release --locked -p isobit --example bench_rank" ;;
    *) echo "usage: install.sh [-n] gloo|openmpi|mpich|intelmpi|mpi4py|rust" >&2 && exit 2 ;;
esac
echo "$command"
$say || exec $command
