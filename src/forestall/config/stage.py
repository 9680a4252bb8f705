"""First stage of the service: settings in, guard out, without what the command line needs.

Run as a file: ``python3 -I -S -E …/forestall/config/stage.py``, so it has to
find its own package first.
"""

from __future__ import annotations

import sys

SETTINGS_WRONG = 3


def main() -> None:
    """Read the settings and become the guard, or print every problem and exit."""
    sys.path.insert(0, __file__.rpartition("/forestall/")[0])
    # The path must be set first.
    from forestall.config.errors import ConfigError  # noqa: PLC0415
    from forestall.config.launch import PACKAGE, exec_guard  # noqa: PLC0415
    from forestall.config.read import load  # noqa: PLC0415
    from forestall.config.trust import require_trusted_code  # noqa: PLC0415

    try:
        settings = load()
        require_trusted_code(sys.executable, PACKAGE, settings.files)
    except ConfigError as error:
        for problem in error.problems:
            # One line each: the journal would split a file's odd name otherwise.
            line = "".join(char if char.isprintable() else "?" for char in str(problem))
            sys.stderr.write(f"<3>{line}\n")
        raise SystemExit(SETTINGS_WRONG) from None
    exec_guard(settings.rules, settings.options, foreground=False)


if __name__ == "__main__":
    main()
