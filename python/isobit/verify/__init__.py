"""`isobit verify`: the value law, checked on the machine where it is run.

Every operation, dtype, order and world size, over every transport, bit for bit against the readable
`isobit.reference`; and, with `--peers`, what other libraries make of the same numbers. Nothing here is loaded by
`import isobit`.

- `data`: the leaves, a function of their numbers
- `cases`: which calls are made
- `truths`: what each must give, by the reference
- `operations`: how a rank makes a call, and what it must get
- `ranks`: the program that every rank runs
- `groups`: starting ranks, and collecting what they found
- `compare`: the first differing element
- `report`: table and verdict
- `peers`, `contenders`, `picture`: other libraries on the same numbers
- `command`: the command line
"""
