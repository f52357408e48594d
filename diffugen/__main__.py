"""`python -m diffugen`: the command `diffugen`."""

import sys

from diffugen.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
