"""Install and uninstall on whole machines: what is installed guards, and nothing is left of it."""

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

FOUND = {
    "install beside others": "1",
    "install": "0",
    "active": "active active",
    "Type": "notify",
    "NotifyAccess": "main",
    "WatchdogUSec": "3min",
    "StatusText": "guarding",
    "faults of the unit": "",
    "seccomp": "NoNewPrivs: 1 Seccomp: 2",
    "oom_score_adj": "-1000",
    "lacks": "",
    "second guard": "1",
    "reload good": "0",
    "after reloads": "active",
    "outcome told": "0",
    "told c624c461c30b4483a148e6e7279a1a65": "0",
    "told 0d86aff9ec7a4c4abc06455891ec9b71": "0",
    "told 4189ff88bf9c495bb658a4b9e8f66fa3": "0",
    "told 1c8296a3b9e94f198bf20565c313832a": "0",
    "kernel kills": "oom_kill 0",
    "sleeper": "active",
    "hog": "failed",
    "restarts of a guard that turns": "0",
    "restarted a guard that stands still": "0",
    "stopped": "success",
    "uninstall": "0",
    "others afterwards": "same",
    "left": "",
    "units left": "",
}
VARLINK = {
    "varlink info": "0",
    "varlink introspect": "0",
    "varlink call": "0",
    "varlink level": "yes",
    "varlink denied": "1",
}


@pytest.mark.parametrize("suite", ["bookworm", "trixie", "forky"])
def test_an_installed_guard_guards_and_leaves_nothing_behind(suite):
    said = []
    request = shell.Request(
        command="sh /run/put/install_probe.sh",
        suite=suite,
        put=(HERE / "install_probe.sh", HERE / "install_hog.py"),
        source=True,
        multi_user=True,
        timeout_s=600,
    )
    shell.run(request, write=said.append)
    output = b"".join(said).decode()
    lines = (line.partition(":") for line in output.splitlines())
    found = {name: rest.strip() for name, _, rest in lines}
    # varlinkctl came with systemd 255.
    wanted = FOUND | (VARLINK if suite != "bookworm" else {})

    assert {name: found.get(name) for name in wanted} == wanted, output
    assert "No such file" in found["after the refusal"]
    assert set(found["others"].split()) <= {"inactive", "failed"}
    assert found["reload bad"] != "0"
    assert float(re.search(r"forestall.service: ([\d.]+)", output).group(1)) < 3
