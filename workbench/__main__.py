"""`python -m workbench` is the command `workbench`; under torchrun, `torchrun -m workbench run EXPERIMENT`."""

import sys

from workbench.cli import main

if __name__ == "__main__":
    sys.exit(main())
