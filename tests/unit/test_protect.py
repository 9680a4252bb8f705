"""The guard's own survival: what is refused comes back as words, never as an exception.

Nothing here may change this test's own process for good: each step is either
refused by a fake, asked of a forked child, or asks for what is already so.
"""

import errno
import gc
import os

import pytest

from forestall.effects import protect
from forestall.kernel import libc


def in_child(step, uid=None):
    """Run a step in a forked child, as another user if asked; returns what it said."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if uid is not None:
                os.setgid(uid)
                os.setuid(uid)
            os.write(writer, repr(step()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as said:
        text = said.read()
    os.waitpid(pid, 0)
    return text


ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")


def test_locking_asks_for_present_future_and_only_what_is_touched():
    asked = []

    said = protect.lock_memory(lambda flags: asked.append(flags) or 0)

    assert said is None
    assert asked == [libc.MCL_CURRENT | libc.MCL_FUTURE | libc.MCL_ONFAULT]


@pytest.mark.parametrize(
    ("number", "why"),
    [(errno.EPERM, "Operation not permitted"), (errno.ENOMEM, "ulimit -l is too low")],
)
def test_memory_that_cannot_be_locked_is_said_with_the_reason(number, why):
    assert protect.lock_memory(lambda _flags: number) == f"memory is not locked ({why})"


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, None),
        (errno.EPERM, "allocations may wait for a disk (Operation not permitted)"),
        (errno.EINVAL, "allocations may wait for a disk (Invalid argument)"),
    ],
)
def test_allocations_that_may_wait_for_a_disk_are_said(number, said):
    assert protect.never_wait_for_a_disk(lambda: number) == said


def test_this_kernel_grants_it_or_says_what_is_missing():
    said = in_child(lambda: protect.never_wait_for_a_disk(libc.prctl_set_io_flusher))

    assert said == "None" or "may wait for a disk" in said


@ROOT
def test_what_needs_privilege_is_said_without_it():
    assert in_child(lambda: protect.raise_priority(-20), uid=12345) == repr(
        "nice -20 is not permitted (Permission denied)"
    )
    assert "oom_score_adj -1000 is not permitted" in in_child(
        lambda: protect.set_own_oom_score_adj(-1000), uid=12345
    )
    assert "real-time scheduling is not permitted" in in_child(protect.run_realtime, uid=12345)


def test_an_impossible_oom_score_adj_is_said_and_not_raised():
    said = in_child(lambda: protect.set_own_oom_score_adj(5000))

    assert said == repr("oom_score_adj 5000 is not permitted (Invalid argument)")


def test_what_is_permitted_is_done_and_nothing_said():
    assert in_child(lambda: protect.raise_priority(19)) == "None"
    assert in_child(lambda: (protect.raise_priority(19), os.getpriority(0, 0))) == "(None, 19)"
    assert in_child(lambda: protect.set_own_oom_score_adj(1000)) == "None"


def test_the_collector_is_quiet_afterwards():
    assert in_child(lambda: (protect.quiet_collector(), gc.isenabled())) == "(None, False)"
    assert gc.isenabled()
