"""What doctor finds, on values; and that it runs here."""

import json
from dataclasses import replace as replace_machine

import pytest

from forestall.cli import main
from forestall.config.lint import Process
from forestall.core.model import Memory
from forestall.core.units import GIB
from forestall.core.value import replace
from forestall.inspect.doctor import KNOBS, Machine, Severity, examine, read_knobs
from forestall.kernel.features import CAPABILITIES, Features

GOOD = Features(
    release="6.18.0",
    pidfd_open=True,
    pidfd_send_signal=True,
    process_mrelease=True,
    psi=True,
    psi_short_windows=True,
    cgroup_mount="/sys/fs/cgroup",
    cgroup_memory=True,
    cgroup_kill=True,
    own_cgroup="/",
    mglru=True,
    swap_kinds=("zram",),
    zram=True,
    zfs=False,
    hidepid=False,
    capabilities=frozenset(CAPABILITIES),
    container="",
    thp="madvise",
)
MEMORY = Memory(8 * GIB, 4 * GIB, 4 * GIB, 4 * GIB, 4 * GIB)


def titles(memory=MEMORY, processes=(), knobs=None, uid=0, **changes):
    machine = Machine(
        features=replace(GOOD, **changes),
        memory=memory,
        processes=processes,
        knobs=knobs,
        uid=uid,
    )
    return [(finding.title, finding.severity) for finding in examine(machine)]


def test_a_good_machine_has_no_findings():
    bystander = Process(pid=9, name="bash", uid=1000, oom_score_adj=0)

    knobs = {"panic_on_oom": 0, "overcommit_memory": 1}
    assert titles(processes=[bystander], knobs=knobs) == []


@pytest.mark.parametrize(
    ("changes", "title", "severity"),
    [
        ({"pidfd_open": False}, "no pidfds", Severity.PROBLEM),
        ({"process_mrelease": False}, "no process_mrelease", Severity.ADVICE),
        ({"psi": False}, "no pressure stall information", Severity.PROBLEM),
        ({"psi_short_windows": False}, "windows of 2 s only", Severity.ADVICE),
        ({"cgroup_mount": ""}, "no cgroup v2", Severity.ADVICE),
        ({"cgroup_memory": False}, "without the memory controller", Severity.ADVICE),
        ({"container": "docker"}, "inside a container (docker)", Severity.ADVICE),
        ({"memory": replace(MEMORY, swap_total_bytes=0)}, "no swap", Severity.ADVICE),
        ({"memory": replace(MEMORY, swap_total_bytes=99 * GIB)}, "swap of", Severity.ADVICE),
        ({"uid": 1000}, "not root (uid 1000)", Severity.ADVICE),
        ({"knobs": {"panic_on_oom": 1}}, "panic_on_oom", Severity.PROBLEM),
        ({"knobs": {"overcommit_memory": 2}}, "overcommit_memory", Severity.ADVICE),
        ({"knobs": {"oom_kill_allocating_task": 1}}, "oom_kill_all", Severity.PROBLEM),
        (
            {"processes": [Process(pid=5, name="earlyoom", uid=0)]},
            "earlyoom is running (process 5)",
            Severity.PROBLEM,
        ),
        (
            {"processes": [Process(pid=5, name="sshd", uid=0, oom_score_adj=-17)]},
            "-17: sshd (5)",
            Severity.ADVICE,
        ),
    ],
)
def test_each_lack_is_found_and_nothing_else(changes, title, severity):
    found = titles(**changes)

    assert len(found) == 1
    assert title in found[0][0]
    assert found[0][1] is severity


def test_what_is_missing_for_ordinary_users_is_only_advice():
    found = titles(capabilities=frozenset({"CAP_KILL"}))

    assert {severity for _title, severity in found} == {Severity.ADVICE}


def test_the_worst_comes_first():
    found = titles(process_mrelease=False, psi=False)

    assert [severity for _title, severity in found] == [Severity.PROBLEM, Severity.ADVICE]


def test_every_finding_says_what_it_means_and_what_to_do():
    """Of a machine on which everything is wrong that can be."""
    bad = Machine(
        features=replace(
            GOOD,
            pidfd_open=False,
            process_mrelease=False,
            psi=False,
            cgroup_mount="",
            hidepid=True,
            capabilities=frozenset(),
            container="lxc",
        ),
        memory=replace(MEMORY, swap_total_bytes=0),
        knobs=dict.fromkeys(KNOBS, 2),
        processes=(
            Process(pid=5, name="earlyoom", uid=0),
            Process(pid=6, name="sshd", uid=0, oom_score_adj=-17),
        ),
    )
    found = examine(bad) + examine(replace_machine(bad, uid=1000))

    assert len({finding.title for finding in found}) >= 14
    assert all(finding.means and finding.remedy for finding in found)


def test_knobs_that_cannot_be_read_are_left_out(tmp_path):
    folder = tmp_path / "proc/sys/vm"
    folder.mkdir(parents=True)
    (folder / "panic_on_oom").write_text("2\n")
    (folder / "overcommit_memory").write_text("odd\n")

    assert read_knobs(str(tmp_path)) == {"panic_on_oom": 2}


def test_doctor_runs_here(capsys):
    assert main.run(["doctor", "--json"]) in {0, 1}
    assert all(row["remedy"] for row in json.loads(capsys.readouterr().out))
