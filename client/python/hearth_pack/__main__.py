import sys

from hearth_pack.cli import main

sys.exit(main())
