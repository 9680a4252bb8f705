"""PSI triggers: the kernel wakes us when time is lost to memory.

Rule: a trigger only ends a sleep. Decisions come from the sampler's totals, which
are fresher: an unprivileged trigger looks once in two seconds.
"""

from __future__ import annotations

import errno
import os

from forestall.core.value import value

PERIOD_US = 2_000_000
"""Windows of unprivileged triggers are multiples of this."""

WINDOW_US_MAX = 10_000_000


@value
class Trigger:
    """An armed trigger: poll ``fd`` for POLLPRI; POLLERR says that its cgroup is gone."""

    fd: int
    stall_us: int
    window_us: int
    """As granted; longer than asked for where the kernel would not have it shorter."""

    def close(self) -> None:
        """Disarm it."""
        os.close(self.fd)


def open_trigger(path: str, *, stall_us: int, window_us: int, kind: str = "some") -> Trigger | None:
    """Arm a trigger on a pressure file, in the wanted window or the next that is allowed.

    Short windows need CAP_SYS_RESOURCE. Since Linux kernel commit d82caa273565
    ("sched/psi: Allow unprivileged polling of N*2s period") (in v6.4) others may use
    multiples of 2 s; before, they may use none.
    The stall stays as asked for, so a longer window is the more watchful one.

    Returns: None without PSI, without permission, or where triggers are unknown.
    """
    multiples = -(-window_us // PERIOD_US) * PERIOD_US
    for window in dict.fromkeys((window_us, min(multiples, WINDOW_US_MAX))):
        try:
            fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            # The kernel wants the closing NUL.
            os.write(fd, f"{kind} {stall_us} {window}\0".encode())
        except OSError as error:
            os.close(fd)
            if error.errno not in {errno.EINVAL, errno.EPERM, errno.EACCES}:
                return None
        else:
            return Trigger(fd, stall_us, window)
    return None
