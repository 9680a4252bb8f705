"""Scores when the n-th open or read fails, for every n: one process knows less, the others all."""

import errno
import itertools
import os

import pytest

from forestall.inspect.looking import Looker
from forestall.kernel.scores import ScoreTable
from tests.fakes.proc import GIB_KIB, FailingRead
from tests.fakes.scored import FakeScores

ERRORS = [
    FileNotFoundError(errno.ENOENT, "gone"),
    ProcessLookupError(errno.ESRCH, "gone"),
    PermissionError(errno.EACCES, "not yours"),
    OSError(errno.EIO, "input/output error"),
    OSError(errno.EMFILE, "too many open files"),
]
PIDS = (20, 21, 22)


@pytest.fixture
def machine(tmp_path):
    fake = FakeScores(tmp_path)
    for pid in PIDS:
        fake.scored(pid, comm=f"p{pid}", anon_kib=pid * GIB_KIB // 10)
    fake.kernel_thread(2)
    return fake


@pytest.mark.parametrize("portraits_max", [None, 10], ids=["all at once", "leaders"])
@pytest.mark.parametrize("which", ["open_file", "read_file"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: errno.errorcode[error.errno])
def test_a_look_survives_any_failed_read(machine, error, which, portraits_max):
    real = os.open if which == "open_file" else os.read
    for n in itertools.count(1):
        failing = FailingRead(real, n, error)
        table = ScoreTable(str(machine.root))
        setattr(table._folder, which, failing)
        looker = Looker(str(machine.root), page_bytes=4096, table=table)
        look = looker.look(portraits_max=portraits_max)
        looker.close()

        kept = {one.id.pid for one in look.scored}
        assert len(set(PIDS) - kept) <= 1
        for one in look.scored:
            # Unknown or true, and never made up.
            assert one.rss_bytes in {None, one.id.pid * GIB_KIB // 10 * 1024, 8192 * 1024}
        if failing.calls < n:
            break
    assert kept >= set(PIDS)
