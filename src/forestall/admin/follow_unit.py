"""The service that keeps protection up: new processes are treated as they come.

Its own service, not the guard's business: it reads names and starts often, and
the guard must stay small. Rule: a file that is not ours is not touched.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from forestall.admin.commands import must
from forestall.admin.errors import AdminError
from forestall.admin.files import read_text, write_whole
from forestall.admin.unit_file import LAUNCHER

if TYPE_CHECKING:
    from collections.abc import Callable

    from forestall.admin.commands import Run

NAME = "forestall-protect.service"
UNIT_PATH = f"etc/systemd/system/{NAME}"
_MARK = "# Written by forestall protect; forestall protect undo removes it.\n"
_TEXT = (
    _MARK
    + """
[Unit]
Description=forestall: protection from the kernel's OOM killer for new processes

[Service]
ExecStart={launcher} protect follow
Restart=always
RestartSec=5
OOMScoreAdjust=-500
MemoryMax=128M
TasksMax=8
UMask=0077
StateDirectory=forestall
StateDirectoryMode=0750
# Other people's oom_score_adj belongs to them; reading whose program runs takes ptrace's right.
CapabilityBoundingSet=CAP_SYS_RESOURCE CAP_DAC_OVERRIDE CAP_SYS_PTRACE
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
PrivateNetwork=yes
RestrictAddressFamilies=AF_UNIX
SystemCallArchitectures=native
LockPersonality=yes

[Install]
WantedBy=multi-user.target
"""
)


def render(launcher: str = LAUNCHER) -> str:
    """Return the text of the unit file."""
    return _TEXT.format(launcher=launcher)


def is_there(root: Path) -> bool:
    """Tell whether our service is written."""
    return (read_text(root / UNIT_PATH) or "").startswith(_MARK)


def check(root: Path, launcher: Callable[[], str | None] = lambda: shutil.which(LAUNCHER)) -> str:
    """Look whether the service can be installed; returns the command that it will run.

    Raises: AdminError without an installed command, or over somebody else's file.
    """
    command = launcher()
    if command is None:
        raise AdminError(f"the service needs {LAUNCHER}: run forestall install first")
    path = root / UNIT_PATH
    if path.exists() and not is_there(root):
        raise AdminError(f"{path} exists and is not ours")
    return command


def install(
    root: Path, run: Run, *, launcher: Callable[[], str | None] = lambda: shutil.which(LAUNCHER)
) -> None:
    """Write the service and start it.

    Raises: AdminError, as ``check``; OSError.
    """
    write_whole(root / UNIT_PATH, render(check(root, launcher)))
    for words in (("daemon-reload",), ("enable", NAME), ("restart", NAME)):
        must(run("systemctl", *words), ("systemctl", *words))


def remove(root: Path, run: Run) -> bool:
    """Stop the service and take it away; returns whether there was one.

    Raises: AdminError; OSError.
    """
    if not is_there(root):
        return False
    words = ("disable", "--now", NAME)
    must(run("systemctl", *words), ("systemctl", *words))
    (root / UNIT_PATH).unlink()
    run("systemctl", "daemon-reload")
    return True
