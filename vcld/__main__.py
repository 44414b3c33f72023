"""``python -m vcld``."""

import sys

from vcld.cli import main

sys.exit(main())
