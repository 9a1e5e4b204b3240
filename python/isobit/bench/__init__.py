"""`isobit bench`: how fast the collectives are on this machine, isobit beside every peer in one run.

All libraries' ranks are started once and stay. Each waits in a blocking read of the driver's socket, so that those
that are not asked burn nothing. The driver gives one library after another the same round of the same case. Nothing
here is loaded by `import isobit`.

- `cases`: what is measured, and what it takes
- `pattern`: the input data, and the one right answer
- `rank`: the program that every Python rank runs; `callers`: how it calls each library
- `mpi_rank.c`: the same program for any MPI; `rust/runtime/examples/bench_rank.rs`: the same in Rust
- `peers`: which libraries are here, how each is started, and how one that is missing is installed
- `toolchains`: the MPIs that this machine may have
- `groups`: the ranks of one library, from their start to their end
- `rounds`: who is asked what and when, and what comes of the times
- `report`: the table, the ratios and the JSON; `goals`: what the project has promised; `picture`: the plot
- `command`: the command line
"""
