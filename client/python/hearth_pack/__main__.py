import sys

from hearth_pack.cli import command

sys.exit(command())
