"""`python -m nbs_utils` is `nbs`."""

import sys

from .cli.main import main

sys.exit(main())
