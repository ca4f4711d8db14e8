"""`python -m suffuse` is the command `suffuse`."""

import sys

from suffuse.cli import main

sys.exit(main())
