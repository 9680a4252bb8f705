"""``python -m arena``: build, shell, run, smoke, all, list, table."""

from __future__ import annotations

import sys

from arena.cli import main

sys.exit(main())
