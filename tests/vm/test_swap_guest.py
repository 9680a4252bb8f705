"""Cleanups with real swap in a guest: what would harm is refused, what is interrupted undone."""

import json
import shutil

import pytest

from tests.vm.scenes import play

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no QEMU"),
]

AS_BEFORE = {"/dev/vdc": 7, "/swapfile": 3}


@pytest.fixture(scope="module")
def scenes():
    return play("swap_probe.py", swap_mib=1024, timeout_s=1200)


def test_a_recycling_that_would_not_fit_is_refused_and_touches_nothing(scenes):
    scene = scenes["swap-does-not-fit"]

    assert scene["code"] == 1
    assert "do not fit" in scene["said"]
    assert scene["used_mib"] >= 150
    assert scene["priorities"] == AS_BEFORE


@pytest.mark.parametrize(
    ("name", "code", "why"),
    [
        ("swap-ctrl-c", 130, "swap stays in use"),
        ("swap-helper-killed", 1, "its helper was ended from outside"),
        ("swap-others-stall", 1, "hog.service waited for memory"),
        ("swap-memory-runs-short", 1, "given up"),
        ("swap-who-asked-is-killed", 9, ""),
        ("swap-helper-killed-in-the-last-process", 0, "brought"),
    ],
)
def test_whatever_interrupts_a_recycling_swap_is_on_as_it_was(scenes, name, code, why):
    scene = scenes[name]

    assert scene["began"]
    assert scene["over"]
    assert scene["code"] == code
    assert why in scene["said"]
    assert scene["used_before_mib"] > 0
    assert scene["priorities"] == AS_BEFORE


def test_a_recycling_that_fits_says_before_and_after_what_it_gains(scenes):
    dry, done = scenes["swap-dry-run"], scenes["swap-fits"]

    assert dry["code"] == 0
    assert json.loads(dry["said"])["op"] == "plan"
    assert dry["untouched"]
    assert done["code"] == 0
    assert "brought" in done["said"]
    assert sum(row[1] for row in done["before"].values()) > 0
    assert sum(row[1] for row in done["after"].values()) == 0
    assert {path: row[2] for path, row in done["after"].items()} == AS_BEFORE


def test_the_page_cache_is_left_alone_while_others_stall_and_dropped_in_calm(scenes):
    stalled, calm = scenes["cache-while-stalled"], scenes["cache-in-calm"]

    assert stalled["code"] == 1
    assert "would be read again at once" in stalled["said"]
    assert calm["code"] == 0
    assert "of page cache; available memory changed by" in calm["said"]


def test_a_cold_cgroup_gives_back_bounded_bytes_and_the_gain_is_real(scenes):
    scene = scenes["cgroup-cold"]
    before, untouched, after_small, after_rest = scene["held_mib"]
    small, rest = json.loads(scene["small"]["said"]), json.loads(scene["rest"]["said"])

    assert json.loads(scene["dry"]["said"])["op"] == "plan"
    assert before == untouched
    assert small["op"] == rest["op"] == "relieved"
    assert 32 <= before - after_small <= 48, "the kernel may take half as much again"
    assert abs((before - after_small) - (small["gained_bytes"] >> 20)) <= 2
    assert abs((after_small - after_rest) - (rest["gained_bytes"] >> 20)) <= 2
    assert after_rest >= after_small // 2 - 24, "at most half of what is there, at a time"


def test_a_cgroup_that_needs_what_it_has_is_refused(scenes):
    scene = scenes["cgroup-hot"]

    assert scene["code"] == 1
    assert "was not done" in scene["said"]


def test_the_service_recycles_only_with_the_grant_that_the_settings_ask_for(scenes):
    without, granted = scenes["service-without-grant"], scenes["service-with-grant"]

    assert without["news"]
    assert all(kind == "declined" for kind, _said in without["news"])
    assert any("CAP_SYS_ADMIN is missing here" in said for _kind, said in without["news"])
    assert without["used_mib"] >= 150
    assert "CAP_SYS_ADMIN" in granted["installed"]
    assert "cap_sys_admin" in granted["bound"]
    assert "relieved" in dict(granted["news"])
    assert granted["used_mib"] < without["used_mib"] // 10
    assert granted["priorities"] == AS_BEFORE


def test_whoever_is_killed_in_the_service_swap_is_on_again(scenes):
    killed, stopped = scenes["service-relief-killed"], scenes["service-stopped-half-way"]

    assert killed["began"]
    assert killed["relief"]
    assert killed["active"] == "active"
    assert killed["priorities"] == AS_BEFORE
    assert stopped["began"]
    assert stopped["priorities"] == AS_BEFORE
    assert "/dev/vdc" in stopped["note"], "the service was killed with its helper in the middle"
    if stopped["after_stop"] != AS_BEFORE:
        assert any("it is on again" in said for _kind, said in stopped["news"])


def test_the_service_reclaims_and_gives_its_grant_back(scenes):
    scene = scenes["service-reclaims"]

    assert "relieved" in dict(scene["news"])
    assert scene["held_mib"][1] < scene["held_mib"][0], scene
    assert "cap_sys_admin" not in scene["bound"]
