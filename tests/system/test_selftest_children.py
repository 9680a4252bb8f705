"""The rehearsal at start, on real children; what a sandbox would forbid is said by name."""

import errno
import os
import signal
import subprocess

from forestall.guard import selftest
from forestall.kernel import libc


def children():
    try:
        return os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None


def in_child(step):
    """In a fresh process, so that no other test's children are looked at."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, repr(step()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as said:
        text = said.read()
    os.waitpid(pid, 0)
    return text


def test_the_kill_path_works_here_and_leaves_no_child_and_no_bystander_harmed():
    bystander = subprocess.Popen(["sleep", "60"])

    def rehearse():
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        fatal = [f for f in selftest.rehearse(libc.process_mrelease) if f.fatal]
        return fatal, children(), len(os.listdir("/proc/self/fd")) - before  # noqa: PTH208

    said = in_child(rehearse)
    alive = bystander.poll() is None
    bystander.kill()
    bystander.wait()

    assert said == "([], None, 0)"
    assert alive


def test_a_kernel_without_mrelease_is_a_lack_and_not_fatal():
    (finding,) = [
        finding
        for finding in selftest.rehearse(lambda _pidfd: errno.ENOSYS)
        if finding.what == "mrelease"
    ]

    assert not finding.fatal
    assert "Function not implemented" in finding.means
    assert "late" in finding.means


def test_races_with_the_dying_child_are_no_findings():
    for number in (0, errno.ESRCH, errno.EAGAIN, errno.EINVAL):
        found = selftest.rehearse(lambda _pidfd, number=number: number)

        assert [finding for finding in found if finding.what == "mrelease"] == []


def test_a_guard_without_privilege_learns_that_it_cannot_end_strangers():
    if os.geteuid() != 0:
        said = selftest.knock()
    else:

        def knock():
            os.setgid(12345)
            os.setuid(12345)
            return selftest.knock()

        said = in_child(knock)

    assert said is not None
    assert "cannot be ended: Operation not permitted" in said


def test_a_child_that_blocks_sigterm_would_be_seen():
    """The sacrifice unblocks and resets what it inherited: a blocked SIGTERM is no finding."""

    def rehearse():
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return [f for f in selftest.rehearse(libc.process_mrelease) if f.fatal]

    assert in_child(rehearse) == "[]"
