"""Secrets for herald where systemd is too old for ``ImportCredential=``: each is named.

A drop-in of its own, written by ``install`` for the secrets that the settings name and
that are there; a missing one would keep the service from starting.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from forestall.admin.herald_unit import HERALD_NAME
from forestall.admin.unit_file import Line, render

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forestall.config.alerts import Channel

SECRETS_FOLDER = f"/etc/systemd/system/{HERALD_NAME}.d"
SECRETS_FILE = f"{SECRETS_FOLDER}/50-forestall-secrets.conf"
STORE = "/etc/credstore"
IMPORTS_SINCE = 254
"""Source: systemd's NEWS, version 254: ImportCredential=."""
_TIMEOUT_S = 10


def systemd_version() -> int | None:
    """Ask systemctl for its version; None when it does not say."""
    try:
        done = subprocess.run(
            ["systemctl", "--version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    words = done.stdout.split(maxsplit=2)
    return int(words[1]) if words[1:2] and words[1].isdecimal() else None


def stored(channels: Iterable[Channel]) -> dict[str, str]:
    """Return where the secret of each channel is stored, by channel; given paths are left out."""
    names = {channel.name: channel.keys.get("secret") or "" for channel in channels}
    return {
        channel: f"{STORE}/forestall.{name}"
        for channel, name in names.items()
        if name and not name.startswith("/")
    }


def render_secrets(paths: Iterable[str]) -> str:
    """Return the text of the drop-in."""
    lines = [
        Line("LoadCredential", f"{path.rpartition('/')[2]}:{path}") for path in sorted(set(paths))
    ]
    return render((("Service", (lines,)),), {})
