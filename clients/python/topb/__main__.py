"""`python -m topb`: the `topb` command."""

import sys

from topb.commands import main

if __name__ == "__main__":
    sys.exit(main())
