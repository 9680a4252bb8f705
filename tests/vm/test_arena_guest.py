"""A guest boots, runs a command, and gives back output, files and status."""

import shutil

import pytest

from arena import shell

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no QEMU"),
]


def test_a_command_in_a_guest_gives_output_status_and_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = []
    command = (
        "cat /proc/self/oom_score_adj; systemctl is-system-running; echo kept > /root/kept; exit 7"
    )

    status = shell.run(shell.Request(command=command, get=("/root/kept",)), write=said.append)

    assert b"".join(said).split() == [b"0", b"running"]
    assert status == 7
    assert (tmp_path / "root" / "kept").read_text() == "kept\n"
