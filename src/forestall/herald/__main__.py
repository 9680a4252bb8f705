"""``python3 -I -S -E …/forestall/herald/__main__.py [FILE…]``: herald as a service.

Without files the settings are those of the machine.
"""

from __future__ import annotations

import os
import sys

SETTINGS_WRONG = 3


def main() -> None:
    """Read the settings and run, or print every problem and exit."""
    if not __package__:
        # Run as a file: our folder comes first then, and its module names are not for everybody.
        sys.path[0:1] = [__file__.rpartition("/forestall/")[0]]
    from forestall.config.errors import ConfigError  # noqa: PLC0415 - the path must be set first
    from forestall.config.read import load  # noqa: PLC0415
    from forestall.herald.runner import complain, run  # noqa: PLC0415

    try:
        settings = load(sys.argv[1:] or None)
    except ConfigError as error:
        for problem in error.problems:
            complain("".join(char if char.isprintable() else "?" for char in str(problem)))
        raise SystemExit(SETTINGS_WRONG) from None
    run(
        settings.channels,
        socket_path=settings.options.socket_path,
        environment=dict(os.environ),
    )


if __name__ == "__main__":
    main()
