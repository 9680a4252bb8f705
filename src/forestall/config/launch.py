"""From the first stage to the guard: compiled rules go into a memfd, and this process becomes it.

The interpreter that read the settings has imported tomllib and more; exec
leaves all of that behind. The guard keeps our PID, so a supervisor keeps it too.
"""

from __future__ import annotations

import marshal
import os
import sys

from forestall.core.codec import encode
from forestall.core.rules import Options
from forestall.core.value import TYPE_CHECKING, replace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import NoReturn

    from forestall.core.rules import Rules

FLAGS = ("-I", "-S", "-E")
PACKAGE = os.path.realpath(__file__).rpartition("/config/")[0]


def hand_over(rules: Rules, options: Options, *, foreground: bool) -> bytes:
    """Pack what the second stage needs: rules, options, and whether a person watches."""
    return marshal.dumps((encode(rules), encode(options), foreground))


def arguments(fd: int, *, package: str) -> list[str]:
    """Return the command line of the second stage, without the interpreter."""
    return [*FLAGS, f"{package}/guard/start.py", str(fd)]


def exec_guard(
    rules: Rules, options: Options, *, foreground: bool, package: str = PACKAGE
) -> NoReturn:
    """Become the guard; does not return.

    Raises: OSError when the interpreter cannot be started again.
    """
    # 0: no MFD_CLOEXEC, for this descriptor is meant to survive the exec.
    fd = os.memfd_create("forestall-rules", 0)
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(hand_over(rules, options, foreground=foreground))
    os.lseek(fd, 0, os.SEEK_SET)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *arguments(fd, package=package)])  # noqa: S606 - no shell wanted


def user_socket(
    uid: int, environment: Mapping[str, str], *, is_folder: Callable[[str], bool] = os.path.isdir
) -> str:
    """Where the guard of one user listens: below the run-time folder, or at home without one.

    Who came by su, cron or ssh without a session manager has no run-time folder.
    """
    runtime = environment.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}"
    folder = f"{runtime}/forestall" if is_folder(runtime) else user_folder(environment)
    return f"{folder}/control.sock"


def user_folder(environment: Mapping[str, str]) -> str:
    """Where the guard of one user keeps its records."""
    home = environment.get("HOME") or "/"
    return f"{environment.get('XDG_STATE_HOME') or f'{home}/.local/state'}/forestall"


def fit_to_user(options: Options, uid: int, environment: Mapping[str, str]) -> Options:
    """Make options fit for somebody who is not root: own processes, own folders.

    What was set is kept; only the defaults that need root are replaced.
    """
    if uid == 0:
        return options
    usual = Options()
    changes: dict[str, object] = {}
    if options.only_uid is None:
        changes["only_uid"] = uid
    if options.socket_path == usual.socket_path:
        changes["socket_path"] = user_socket(uid, environment)
    if options.record_dir == usual.record_dir:
        changes["record_dir"] = user_folder(environment)
    return replace(options, **changes)
