"""The n-th read fails, for every n: only declared errors come out, and the next round works."""

import errno
import itertools
import os
from contextlib import suppress

import pytest

from forestall.core.standing import Matcher
from forestall.kernel.errors import KernelFormatError
from forestall.kernel.processes import ProcessTable
from forestall.kernel.sampler import Sampler
from tests.fakes.proc import FailingRead, FakeProc

GIB = 1024**3

ERRORS = [
    FileNotFoundError(errno.ENOENT, "gone"),
    ProcessLookupError(errno.ESRCH, "gone"),
    PermissionError(errno.EACCES, "not yours"),
    OSError(errno.EIO, "input/output error"),
    OSError(errno.ENOMEM, "no memory"),
    OSError(errno.EMFILE, "too many open files"),
]


@pytest.fixture
def proc(tmp_path):
    proc = FakeProc(tmp_path)
    proc.meminfo(swap_total=8 * 1024**2, swap_free=6 * 1024**2)
    proc.vmstat()
    proc.pressure()
    proc.swaps(("/dev/zram0", "partition", 8 * 1024**2, 2 * 1024**2, 100))
    proc.mm_stat("zram0", 2 * GIB, GIB, GIB)
    proc.arcstats(5, 4)
    proc.process(1, comm="systemd", parent=0, start=1)
    proc.process(500, comm="forestall", parent=400, anon_kib=4096)
    proc.process(400, comm="bash", parent=1)
    proc.kernel_thread(50)
    proc.process(60, state="Z")
    for pid in (100, 101, 102):
        proc.process(pid, parent=400, anon_kib=8192, swap_kib=9000, data_kib=65536)
    return proc


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: errno.errorcode[error.errno])
def test_a_sample_survives_any_failed_read(proc, error):
    good = Sampler(str(proc.root)).sample(0, with_activity=True)

    n = 0
    for n in itertools.count(1):
        pread = FailingRead(os.pread, n, error)
        try:
            sensor = Sampler(str(proc.root), pread=pread)
        except (OSError, KernelFormatError):
            continue
        with suppress(OSError, KernelFormatError):
            sensor.sample(0, with_activity=True)
        if pread.calls < n:
            break
        again = sensor.sample(1, with_activity=True)
        sensor.close()

        # Found unusable at the start, pressure is given up; everything else recovers.
        assert again.memory == good.memory

    assert n > 10


@pytest.mark.parametrize("which", ["open_file", "read_file"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: errno.errorcode[error.errno])
def test_a_survey_survives_any_failed_read(proc, error, which):
    """One process is missing at most for one survey, and nobody loses his protection."""
    real = {"open_file": os.open, "read_file": os.read}[which]
    for n in itertools.count(1):
        failing = FailingRead(real, n, error)
        table = ProcessTable(
            str(proc.root),
            matcher=Matcher(()),
            own_pid=500,
            page_bytes=4096,
            clk_tck=100,
            **{which: failing},
        )
        first = {
            row.id.pid for row in table.survey(itertools.count().__next__, swap_used=True).rows
        }
        if failing.calls < n:
            break
        second = table.survey(itertools.count().__next__, swap_used=True).rows
        never = {row.id.pid for row in second if row.standing.value == "never"}
        table.close()

        assert len({100, 101, 102} - first) <= 1
        assert {100, 101, 102} <= {row.id.pid for row in second}
        assert never == {1, 400, 500}

    assert n > 20
