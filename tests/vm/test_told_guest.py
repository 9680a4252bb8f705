"""In a guest, with the guard installed as a service: what systemd says of those it ended."""

import re
import shutil
from pathlib import Path

import pytest

from arena import shell

HERE = Path(__file__).parent
pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no QEMU"),
]


def parts(output):
    """What each part of the script said, by its title."""
    found = {}
    held = found.setdefault("", [])
    for line in output.splitlines():
        if line.startswith("# "):
            held = found.setdefault(line.removeprefix("# "), [])
        else:
            held.append(line)
    return found


def state(lines):
    """What systemctl show said, whatever the order."""
    return set(lines[0].split())


@pytest.mark.parametrize("suite", ["bookworm", "trixie", "forky"])
def test_systemd_says_why_a_unit_went_and_what_goes_on_goes_on(suite):
    said = []
    request = shell.Request(
        command="sh /run/put/told.sh",
        suite=suite,
        put=(HERE / "told.sh", HERE / "growers.py"),
        source=True,
        timeout_s=600,
    )
    shell.run(request, write=said.append)
    output = b"".join(said).decode()
    told = parts(output)

    assert state(told["service"]) == {"Result=oom-kill", "ActiveState=failed"}, output
    assert "single.service: Failed with result 'oom-kill'." in told["service"]
    assert any("SIG" in line for line in told["service"] if line.startswith("status shows: "))
    results = [line for line in told["service that restarts"] if "Failed with result" in line]
    assert len(results) >= 3, output
    assert all(line.endswith("'oom-kill'.") for line in results)
    assert any("for the 3rd time in" in line for line in told["service that restarts"])
    assert any(
        line.startswith("comes back looper.service") for line in told["service that restarts"]
    )
    assert state(told["worker"]) == {"Result=success", "ActiveState=active"}, output
    assert state(told["scope"]) == {"Result=oom-kill", "ActiveState=failed"}, output
    rounds = [line for line in told["another killer"] if line.startswith("round")]
    assert [re.search(r"follower (\w+)", line)[1] for line in rounds] == ["active"] * 3, output
    (bystander,) = [line for line in told["in the end"] if line.startswith("bystander")]
    assert len(set(re.findall(r"\d+", bystander))) == 1, output
    assert "kernel kills 0" in told["in the end"]
