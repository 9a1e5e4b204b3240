"""`python -m isobit` is the command `isobit`."""

import sys

from isobit.cli import main

if __name__ == "__main__":
    sys.exit(main())
