"""Alerts in a guest under real hogs: told before the kill, and nothing of it delays the guard."""

import shutil

import pytest

from tests.vm.scenes import play

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no QEMU"),
]

LATE_MS_MAX = 100
BESIDE_A_SLEEPER = 2.0
"""A host that cannot even wake a sleeper in time says nothing about the guard."""
QUEUED = 10_000
HOGS = ("all-is-well", "network-hangs-and-disks-are-full", "herald-is-stopped")


@pytest.fixture(scope="module")
def scenes():
    return play("alerts_probe.py", timeout_s=1100)


@pytest.mark.parametrize("hog", HOGS)
def test_the_hog_goes_the_bystander_stays_and_the_guard_is_in_time(scenes, hog):
    scene = scenes[hog]

    assert scene["code"] in {-15, -9}
    assert scene["bystander_lives"]
    assert scene["kernel_kills"] == 0
    assert scene["guard_late_ms"] <= max(LATE_MS_MAX, BESIDE_A_SLEEPER * scene["sleeper_late_ms"])


@pytest.mark.parametrize("hog", HOGS[:2])
def test_the_warning_is_heard_before_the_signal_is_sent(scenes, hog):
    scene = scenes[hog]

    assert scene["warning_heard_before_the_signal_s"] > 0
    assert "next to go" in scene["warning"]
    assert scene["likely"] == "python3"
    assert 1 <= len(scene["top"]) <= 5


def test_ten_thousand_events_wait_for_a_network_that_hangs(scenes):
    (hangs,) = [one for one in scenes["ready"]["alerts"]["channels"] if one["name"] == "hangs"]

    assert hangs["waiting"] + hangs["held"] >= QUEUED
    assert scenes["storm"]["told"] >= QUEUED
    assert scenes["accounts"]["connections_that_hang"] > 0


def test_nothing_is_lost_that_was_not_counted(scenes):
    accounts = scenes["accounts"]
    seen = accounts["alerts"]

    assert seen["received"] + seen["lost"] == sum(accounts["told"])
    for channel in seen["channels"]:
        places = ("sent", "failed", "waiting", "held")
        assert channel["wanted"] == sum(channel[place] for place in places), channel
    assert accounts["log_torn"] == []
