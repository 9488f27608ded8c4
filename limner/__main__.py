"""`python -m limner` is the command `limner`."""

import sys

from limner.commands import main

sys.exit(main())
