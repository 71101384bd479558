"""`python -m taxonet` is the command."""

import sys

from taxonet.cli.app import main

sys.exit(main())
