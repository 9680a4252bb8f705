"""Second stage: receives compiled rules in a memfd and becomes the guard.

Run as a file with ``python -I -S -E``, so it has to find its own package first.
The stage before has read the settings and is gone: what reads them is never
part of the long-lived process.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Take over the rules from the descriptor named in our arguments, and guard."""
    here = __file__.rpartition("/forestall/")[0]
    sys.path.insert(0, here)
    from forestall.guard.daemon import take_over  # noqa: PLC0415 - the path must be set first

    raise SystemExit(take_over(int(sys.argv[1])))


if __name__ == "__main__":
    main()
