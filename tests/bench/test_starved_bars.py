"""A victim that gets almost no processor: how soon its memory is back, with relief and without.

The victim is our own child and holds 2 GiB on a leash. It is starved by a quota of its
cgroup, which costs the neighbours nothing, or else by its nice value beside burners. A
bystander starves with it and must live.
"""

import os
import select
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from forestall.kernel import libc
from forestall.relief.hand import Hand
from forestall.relief.serve import Relief
from tests.bench import support
from tests.bench.support import times

pytestmark = pytest.mark.bench

SIZE_BYTES = 2 << 30
TURNS = 3
GAIN_MIN = 4.0
GONE_S_MAX = 30
CPU_FOLDERS = (Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup"))


@contextmanager
def starved():
    """Make a cgroup with two percent of one processor; yields where to write a pid."""
    for base in CPU_FOLDERS:
        version_1 = (base / "cpu.cfs_quota_us").exists()
        listed = base / "cgroup.controllers"
        if not version_1 and not (listed.exists() and "cpu" in listed.read_text().split()):
            continue
        folder = base / f"forestall-bench-{os.getpid()}"
        try:
            folder.mkdir()
            if version_1:
                (folder / "cpu.cfs_period_us").write_text("100000")
                (folder / "cpu.cfs_quota_us").write_text("2000")
            else:
                (folder / "cpu.max").write_text("2000 100000")
        except OSError as error:
            pytest.skip(f"no cgroup of our own for the processor: {error}")
        try:
            yield folder / "cgroup.procs"
        finally:
            folder.rmdir()
        return
    pytest.skip("no cpu controller")


def serve(end):
    Relief(end, mrelease=libc.process_mrelease, record_dir="", record_bytes_max=0).run()


def seconds_to_end(hog, procs, hand):
    """Fill 2 GiB, starve the process, kill it; returns how long it takes to be gone."""
    progress = os.memfd_create("progress")
    os.ftruncate(progress, 4096)
    # The hog reads its progress page at descriptor 3.
    with (
        os.fdopen(progress, "rb"),
        support.child(
            ["/bin/sh", "-c", f"exec 3<>/dev/fd/{progress}; exec {hog} {SIZE_BYTES} 0"],
            b"ready",
            pass_fds=(progress,),
        ) as victim,
    ):
        victim.stdin.write(b"\n")
        victim.stdin.flush()
        assert victim.stdout.readline() == b"full\n"
        procs.write_text(str(victim.pid))
        pidfd = os.pidfd_open(victim.pid)
        try:
            began = time.monotonic()
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            if hand is not None:
                hand.reap(pidfd)
            assert select.select([pidfd], [], [], GONE_S_MAX)[0], "the victim did not end"
            return time.monotonic() - began
        finally:
            os.close(pidfd)
            victim.wait()


def test_relief_brings_a_starved_victims_memory_back_sooner(board, tmp_path):
    hog = support.built(tmp_path, "hog")
    hand = Hand(serve)
    hand.start()
    alone, helped = [], []
    try:
        with starved() as procs:
            bystander = subprocess.Popen(["sleep", "600"])
            procs.write_text(str(bystander.pid))
            try:
                for _ in range(TURNS):
                    alone.append(seconds_to_end(hog, procs, None))
                    helped.append(seconds_to_end(hog, procs, hand))
                lives = bystander.poll() is None
            finally:
                bystander.kill()
                bystander.wait()
    finally:
        hand.close()
    gain = support.median([a / b for a, b in zip(alone, helped, strict=True)])

    board.show(
        "2 GiB victim with 2 % of a processor gone: relief / SIGKILL alone",
        f"{support.median(helped):.2f} s / {support.median(alone):.2f} s",
        ratio=f"{times(gain)} sooner",
        limit=f"{times(GAIN_MIN)} sooner",
        met=gain >= GAIN_MIN,
    )
    assert lives
    assert gain >= GAIN_MIN
