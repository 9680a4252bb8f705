"""Runs inside a guest: tries everything the guard and relief may need, and prints what failed.

Arguments: the PID of somebody else's process, and its cgroup's folder.
"""

import contextlib
import ctypes
import errno
import os
import signal
import socket
import sys
from pathlib import Path

PROCESS_MRELEASE = 448


def main():
    pid, cgroup = int(sys.argv[1]), sys.argv[2]
    libc = ctypes.CDLL(None, use_errno=True)
    for name, attempt in (
        ("meminfo", Path("/proc/meminfo").read_bytes),
        ("pressure", Path("/proc/pressure/memory").read_bytes),
        ("trigger", trigger),
        ("drop_caches", lambda: write("/proc/sys/vm/drop_caches", "1")),
        ("realtime", lambda: os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))),
        ("nice", lambda: os.setpriority(os.PRIO_PROCESS, 0, -20)),
        ("adj", lambda: write("/proc/self/oom_score_adj", "-1000")),
        ("mlockall", lambda: check(libc, libc.mlockall(7))),
        ("exe", Path(f"/proc/{pid}/exe").readlink),
        ("descriptors", lambda: [fd.readlink() for fd in Path(f"/proc/{pid}/fd").iterdir()]),
        ("reclaim", lambda: write(f"{cgroup}/memory.reclaim", "4K")),
        ("mark", lambda: os.setxattr(cgroup, "user.oomd_ooms", b"1")),
        ("mrelease", lambda: mrelease(libc)),
        ("signal", lambda: signal.pidfd_send_signal(os.pidfd_open(pid), 0)),
        ("cgroup.kill", lambda: write(f"{cgroup}/cgroup.kill", "1")),
        ("memfd", lambda: os.memfd_create("x")),
        ("write-etc", lambda: write("/etc/forestall-probe", "x")),
        ("internet", lambda: socket.socket(socket.AF_INET)),
    ):
        try:
            attempt()
        except (OSError, MemoryError) as error:
            say("cannot", name, repr(error))
        else:
            say("can", name)


def say(*words):
    sys.stdout.write(" ".join(words) + "\n")


def trigger():
    fd = os.open("/proc/pressure/memory", os.O_RDWR | os.O_NONBLOCK)
    os.write(fd, b"some 70000 1000000\0")


def write(path, text):
    fd = os.open(path, os.O_WRONLY | (os.O_CREAT if path.startswith("/etc") else 0))
    # memory.reclaim answers EAGAIN when there was less to take than asked for.
    with contextlib.suppress(BlockingIOError):
        os.write(fd, text.encode())
    os.close(fd)


def mrelease(libc):
    pid = os.fork()
    if pid == 0:
        signal.pause()
    pidfd = os.pidfd_open(pid)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    failed = libc.syscall(PROCESS_MRELEASE, pidfd, 0)
    number = ctypes.get_errno()
    os.waitpid(pid, 0)
    if failed and number not in {errno.ESRCH, errno.EAGAIN}:
        raise OSError(number, os.strerror(number))


def check(libc, failed):
    if failed:
        raise OSError(ctypes.get_errno(), "failed")


main()
