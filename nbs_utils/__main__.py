"""`python -m nbs_utils` is `nbs`."""

import sys

from .cli import main

sys.exit(main())
