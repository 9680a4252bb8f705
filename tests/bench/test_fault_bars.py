"""Page faults when it matters: none that waits for a disk, next to none at all."""

import pytest

from tests.bench import support

pytestmark = pytest.mark.bench

TICKS = 20_000
MINOR_MAX = 8


def test_ticks_surveys_and_ends_touch_no_new_page(board, tmp_path):
    found = support.drive("faults", TICKS, tmp_path)
    if not found["locked"]:
        pytest.skip("memory may not be locked here (CAP_IPC_LOCK or RLIMIT_MEMLOCK)")
    minor = {name: found[f"{name}_minor"] for name in ("tick", "survey", "end")}
    major = sum(found[f"{name}_major"] for name in minor)

    board.show(
        f"page faults in {TICKS:,} ticks, 20 surveys, 20 rehearsed ends",
        f"{minor['tick']}, {minor['survey']}, {minor['end']} minor; {major} major",
        limit=f"{MINOR_MAX} minor in all; 0 major",
        met=major == 0 and sum(minor.values()) <= MINOR_MAX,
    )
    assert major == 0
    assert sum(minor.values()) <= MINOR_MAX
