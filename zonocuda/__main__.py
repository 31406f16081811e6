"""``python -m zonocuda`` is the command ``zonocuda``."""

import sys

from zonocuda.cli.program import program

sys.exit(program())
