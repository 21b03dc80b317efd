"""`python -m lord_fast` does the same as the command `lord-fast`."""

import sys

from lord_fast.cli import main

if __name__ == "__main__":
    sys.exit(main())
