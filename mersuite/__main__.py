"""`python -m mersuite` is `mersuite`."""

import sys

from mersuite.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
