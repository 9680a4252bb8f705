"""The unit's sandbox in a guest: what the guard needs gets through; what it leaves out would not.

A sandbox that is wrong shows at the first emergency, so it is tried here.
"""

import shutil
from pathlib import Path

import pytest

from arena import shell
from forestall.admin.unit_file import render_unit

REPO = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no QEMU"),
]

# What each protection would forbid, were it set.
LEFT_OUT = {
    "ProtectKernelTunables=yes": {"drop_caches"},
    "ProtectControlGroups=yes": {"reclaim", "cgroup.kill", "mark"},
    "ProcSubset=pid": {"meminfo", "pressure", "trigger", "drop_caches"},
    "RestrictRealtime=yes": {"realtime"},
}
# What each capability is for; each is tried without it.
CAPABILITIES = {
    "CAP_KILL": {"signal"},
    "CAP_SYS_NICE": {"realtime", "nice"},
    "CAP_SYS_RESOURCE": {"trigger", "adj"},
    "CAP_SYS_PTRACE": {"exe", "descriptors"},
    "CAP_DAC_OVERRIDE": {"cgroup.kill", "mark", "reclaim", "descriptors"},
}
SHUT = {"write-etc", "internet"}


def sandbox():
    lines = render_unit().splitlines()
    locked = [line for line in lines if line.startswith("LimitMEMLOCK")]
    first = next(n for n, line in enumerate(lines) if line.startswith("CapabilityBoundingSet"))
    last = next(n for n, line in enumerate(lines) if line.startswith("SystemCallErrorNumber"))
    return locked + [line for line in lines[first : last + 1] if not line.startswith("#")]


def without(capability):
    words = [word.replace(f"{capability} ", "").replace(f" {capability}", "") for word in sandbox()]
    assert words != sandbox()
    return words


def probe(words):
    given = " ".join(f'-p "{word}"' for word in words)
    return f"""
systemd-run -q --unit=other -p User=nobody -p Delegate=yes sleep 1000
sleep 1; C=/sys/fs/cgroup/system.slice/other.service; read P < $C/cgroup.procs
chown nobody $C/cgroup.kill
systemd-run -q --wait --pipe {given} /usr/bin/python3 -I /run/put/sandbox_probe.py $P $C
systemctl stop other 2>/dev/null; systemctl reset-failed other 2>/dev/null
"""


def cannot_do(output):
    """What each case could not do, by case."""
    cases = {}
    held = set()
    for line in output.splitlines():
        if line.startswith("# "):
            held = cases.setdefault(line.removeprefix("# "), set())
        elif line.startswith("cannot "):
            held.add(line.split()[1])
    return cases


def test_every_capability_of_the_unit_is_tried():
    (line,) = (line for line in sandbox() if line.startswith("CapabilityBoundingSet"))

    assert line.partition("=")[2].split() == list(CAPABILITIES)


def test_the_sandbox_lets_through_what_is_needed_and_what_is_left_out_would_not():
    cases = {"as it is": sandbox()}
    cases |= {word: [*sandbox(), word] for word in LEFT_OUT}
    cases |= {name: without(name) for name in CAPABILITIES}
    cases["no mrelease"] = [word for word in sandbox() if "process_mrelease" not in word]
    script = "".join(f"echo '# {name}'\n{probe(words)}" for name, words in cases.items())
    said = []

    request = shell.Request(
        command=script, put=(REPO / "tests/vm/sandbox_probe.py",), timeout_s=600
    )
    shell.run(request, write=said.append)
    output = b"".join(said).decode()
    cannot = cannot_do(output)

    assert output.count("can meminfo") == len(cases) - 1, output
    assert cannot["as it is"] == SHUT
    assert cannot["no mrelease"] == SHUT | {"mrelease"}
    assert {word: cannot[word] - SHUT for word in LEFT_OUT} == LEFT_OUT
    assert {name: cannot[name] - SHUT for name in CAPABILITIES} == CAPABILITIES
