"""What the arena asks of its host, and what it hands to a guest."""

import fcntl
import io
import os
import tarfile
from pathlib import Path

import pytest

from arena import host, image, job, machine, shell
from arena.errors import HostError, ResultError


def test_missing_tools_are_named_all_at_once_with_their_packages():
    tools = {"qemu": "qemu-system", "cpio": "cpio", "gcc": "gcc"}

    with pytest.raises(HostError, match=r"apt-get install .* cpio qemu-system"):
        host.require(tools, which=lambda name: "/usr/bin/gcc" if name == "gcc" else None)


def test_nothing_is_asked_of_a_host_that_has_everything():
    host.require(host.RUN_TOOLS, which=lambda name: f"/usr/bin/{name}")

    assert host.missing_packages(host.BUILD_TOOLS, which=lambda name: name) == []


def test_the_environment_names_cache_and_lock():
    named = {"FORESTALL_ARENA_CACHE": "/a/b", "FORESTALL_ARENA_LOCK": "/c"}

    assert host.cache_folder(named) == Path("/a/b")
    assert host.lock_path(named) == Path("/c")
    assert host.cache_folder({}).name == "forestall-arena"
    assert str(host.lock_path({})) == host.DEFAULT_LOCK


def test_only_one_holder_at_a_time_has_the_lock(tmp_path):
    path = tmp_path / "lock"
    with host.guest_lock(path):
        other = os.open(path, os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)


def test_a_job_is_a_tar_owned_by_root_that_reads_like_a_disk(tmp_path):
    (tmp_path / "tool").write_bytes(b"\x7fELF")
    job.write_job(tmp_path / "job.tar", {"main.sh": "true\n", "tool": tmp_path / "tool"})
    data = (tmp_path / "job.tar").read_bytes()

    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        entries = {entry.name: entry for entry in tar}

    assert set(entries) == {"main.sh", "tool"}
    assert {entry.uid for entry in entries.values()} == {0}
    assert data.endswith(b"\0" * 4096)


def test_what_a_guest_hands_out_stays_below_the_folder(tmp_path):
    archive, target = tmp_path / "files.tar", tmp_path / "out"
    with tarfile.open(archive, "w") as tar:
        for name in ("record.jsonl", "../outside"):
            entry = tarfile.TarInfo(name)
            entry.size = 2
            tar.addfile(entry, io.BytesIO(b"{}"))

    with pytest.raises(ResultError, match="leads elsewhere"):
        machine.unpack(archive, target)

    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("kept", [0, 100, 512, 600, 1500])
def test_a_tar_cut_short_gives_what_is_whole(tmp_path, kept):
    archive = tmp_path / "files.tar"
    with tarfile.open(archive, "w") as tar:
        for name in ("a", "b"):
            entry = tarfile.TarInfo(name)
            entry.size = 300
            tar.addfile(entry, io.BytesIO(b"x" * 300))
    archive.write_bytes(archive.read_bytes()[:kept])

    assert "b" not in machine.unpack(archive, tmp_path / "out")


def test_a_tail_hands_out_each_byte_once(tmp_path):
    path = tmp_path / "out"
    path.write_bytes(b"one")
    tail = machine.Tail(path, limit=8)

    assert tail.read() == b"one"
    assert tail.read() == b""
    path.write_bytes(b"one two three")
    assert tail.read() == b" two "
    assert tail.read() == b""


def test_a_guest_with_more_packages_is_another_guest():
    assert image.guest_name("trixie") == "guest-trixie"
    assert image.guest_name("trixie", ("b", "a")) == "guest-trixie+a+b"


def test_an_unknown_suite_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(HostError, match="bookworm, trixie"):
        image.ensure("potato", cache=tmp_path)


def test_a_shell_carries_what_it_was_told_to(tmp_path):
    (tmp_path / "extra").write_text("x")
    request = shell.Request(command="exit 3", put=(tmp_path / "extra",), source=True, swap_mib=64)
    files = shell.files_of(request)

    assert files["command"] == "exit 3\n"
    assert files["swap"] == "64"
    assert files["put/extra"] == tmp_path / "extra"
    assert {"src/src", "src/site/click", "src/site/pygments"} <= set(files)


def test_a_missing_file_to_put_is_said(tmp_path):
    with pytest.raises(HostError, match="no such file"):
        shell.files_of(shell.Request(command="true", put=(tmp_path / "none",)))


def test_a_panic_is_read_off_the_console(tmp_path):
    noise = host.Noise(wall_s=1, guest_cpu_s=1, other_cores=0)
    console = "x\n[ 9.1] Kernel panic - not syncing: System is deadlocked on memory\n"
    words = {"powered_off": True, "out": b"", "status": "", "noise": noise, "files": tmp_path}

    assert machine.Outcome(console=console, **words).panic == "System is deadlocked on memory"
    assert machine.Outcome(console="", **words).panic is None
