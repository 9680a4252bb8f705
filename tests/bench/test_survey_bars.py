"""A survey of the process table by /proc, beside earlyoom's and nohang's search for a victim.

The herd sleeps and holds next to nothing, so this is the price of looking at each. earlyoom
reads oom_score of all and statm of ties; with --prefer and --avoid also every name. Ours
reads statm of all, and knows names, rules, units and families of all that are large.
"""

import os
import subprocess

import pytest

from tests.bench import support
from tests.bench.support import NOBODY, times
from tests.bench.test_tick_bars import probe_nohang, probed

pytestmark = pytest.mark.bench

SCANS = 5
TURNS = 3
RATIO_MAX = 1.6
SLACK = 1.15


def scan_earlyoom(path, library):
    """Time earlyoom's own scan: always short of memory by its settings, dry, powerless.

    As nobody, so that even a signal that got past --dryrun and the probe would be refused.
    """
    done = subprocess.run(
        [path, "--dryrun", "-r", "0", "-m", "99,99", "-s", "100,100"],
        env={**os.environ, "LD_PRELOAD": library, "PROBE_SCANS": str(SCANS)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        user=NOBODY if os.geteuid() == 0 else None,
        extra_groups=[] if os.geteuid() == 0 else None,
    )
    return probed(done.stdout)


@pytest.mark.parametrize("count", [1_000, 5_000, 10_000])
def test_a_survey_costs_no_more_than_earlyooms_scan_by_half(board, open_folder, count):
    folder = open_folder
    earlyoom, nohang = support.peer("earlyoom"), support.peer("nohang")
    if earlyoom is None:
        pytest.skip("earlyoom is not installed: there is nothing to compare with")
    library = support.built(folder, "earlyoom_probe", "-shared", "-fPIC")
    herd = support.built(folder, "herd")
    ours, theirs, python_s = [], [], []
    with support.child([herd, str(count)], b"ready"):
        for _ in range(TURNS):
            theirs.append(scan_earlyoom(earlyoom, library))
            answer = support.drive("survey", SCANS, folder)
            ours.append(answer["best_ns"])
        if nohang:
            python_s.append(probe_nohang(nohang, folder, "scan", 2))
    ratio = support.median([a / b for a, b in zip(ours, theirs, strict=True)])

    board.show(
        f"survey by /proc, {count:,} processes ({answer['rows']} rows)",
        shown(ours),
        earlyoom=shown(theirs),
        nohang=shown(python_s) if python_s else "",
        ratio=times(ratio),
        limit=times(RATIO_MAX),
        met=ratio <= RATIO_MAX,
    )
    assert ratio <= RATIO_MAX * SLACK


def shown(figures_ns):
    return f"{support.median(figures_ns) / 1e6:.1f} ms"
