"""Protection on a real Debian: systemd, sshd and PostgreSQL outlive the kernel's own killer.

And undo restores every value and file that was ours, compared one by one.
"""

import json
import shutil
from pathlib import Path

import pytest

from arena import shell

REPO = Path(__file__).parents[2]
WARD_DATABASES = -588
pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no QEMU"),
]


@pytest.fixture(scope="module")
def seen():
    """What the probe saw in one guest, by what it was about."""
    said = []
    request = shell.Request(
        command="exec python3 /run/put/protection_probe.py",
        put=(REPO / "tests/vm/protection_probe.py",),
        source=True,
        extra_packages=("postgresql", "openssh-server"),
        memory_mib=1024,
        timeout_s=1200,
    )
    status = shell.run(request, write=said.append)
    output = b"".join(said).decode()
    print(output)  # noqa: T201 - what was seen, should a test fail
    assert status == 0, output
    facts = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return {fact["what"]: fact for fact in facts}


def test_the_plan_says_who_gets_what_and_the_kernel_would_take_the_database(seen):
    before = seen["before"]
    planned = {change["pid"]: change["new"] for change in before["plan"]["changes"]}

    assert before["next"]["pid"] == before["backend"]
    assert planned[before["backend"]] == WARD_DATABASES
    assert -1000 in planned.values()
    assert any(change["rank"] is None or change["rank"] > 1 for change in before["changes"])


def test_what_systemd_would_ignore_or_hand_on_to_every_shell_is_refused(seen):
    (ssh_code, ssh_said), (empty_code, empty_said) = (
        seen["refused"]["ssh"],
        seen["refused"]["postgresql"],
    )

    assert ssh_code == empty_code == 1
    assert "every session" in ssh_said
    assert seen["as Debian has it"]["unit"] in empty_said


def test_values_and_drop_in_are_in_effect(seen):
    protected = seen["protected"]

    assert protected["sshd"] == -1000
    assert protected["backend"] == WARD_DATABASES
    assert protected["postgres"] == seen["as Debian has it"]["postgres"] == -900
    assert not [one for one in protected["applied"] if one["failed"]]
    assert protected["drop_in"]["OOMPolicy"] == "continue"
    assert protected["drop_in"]["MemoryLow"] == str(64 << 20)
    assert protected["drop_in"]["OOMScoreAdjust"] == "-900"
    assert protected["next"]["pid"] != seen["before"]["backend"]
    assert seen["installed"]["manual"]
    assert seen["installed"]["completion"]


def test_new_backends_are_treated_and_a_shell_over_ssh_is_mortal(seen):
    assert seen["followed"]["young"][1] == WARD_DATABASES
    assert seen["followed"]["shell"] == 0


def test_the_kernel_ends_hogs_and_both_services_live(seen):
    after = seen["after the hog"]

    assert after["killed"] >= 1
    assert {name for _pid, name in after["victims"]} == {"python3"}
    listener, postmaster = after["pids"]
    assert after["sshd"] == {"MainPID": str(listener), "NRestarts": "0"}
    assert after["postgres"] == {"MainPID": str(postmaster), "NRestarts": "0"}
    assert after["backend"]
    assert after["session"] == "still alive\n"
    assert after["new_session"] == "in\n"
    assert after["sql"] == "42\n"
    assert after["drop_in"] == {
        name: held
        for name, held in seen["protected"]["drop_in"].items()
        if name in after["drop_in"]
    }


def test_undo_restores_every_value_and_file_that_was_ours(seen):
    undone = seen["undone"]

    assert undone["changed"] == {}
    assert undone["born"] == {}
    assert undone["files_changed"] == []
    assert undone["files"] > 100
    assert undone["among_them"]
    assert not [one for one in undone["undone"] if one["failed"] and "gone" not in one["failed"]]
    assert undone["drop_in"]["MemoryLow"] in {"0", ""}
    assert undone["drop_in"]["DropInPaths"] == ""
    assert not seen["restored"]["files_changed"]


def test_a_value_of_a_unit_holds_after_a_restart_and_undo_takes_it_back(seen):
    written = seen["restarted"]["written"]

    assert seen["restarted"]["values"] == [0, WARD_DATABASES, 0]
    assert written["settings"] == {"OOMScoreAdjust": str(WARD_DATABASES)}
    assert any("old oom_adj" in note for note in written["notes"])
    assert "restart" in written["effects"][0]["then"]


def test_other_killers_are_seen_and_their_settings_read_as_debian_ships_them(seen):
    peers = seen["peers"]

    assert {name for name, one in peers["seen"].items() if one["here"]} >= {
        *("earlyoom", "nohang", "systemd-oomd", "oomd"),
    }
    assert [name for name, got in peers["imports"].items() if not got["settings"]] == []
    assert peers["imports"]["nohang"]["lost"]
    assert "would" in peers["install"]
    assert peers["setup"]["steps"]
    assert peers["setup"]["done"] is False


def test_an_ordinary_user_is_told_what_is_missing_and_nothing_happens(seen):
    wrong = {
        line: said for line, said in seen["nobody"]["told"].items() if said[0] != 4 or not said[1]
    }

    assert wrong == {}
    assert all("root" in said[1] for said in seen["nobody"]["told"].values())
