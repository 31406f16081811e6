"""``python -m zonocuda`` is the command ``zonocuda``."""

import sys

from zonocuda.cli.main import main

sys.exit(main())
