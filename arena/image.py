"""Guests: a Debian root image, its kernel and an initramfs, made once and kept.

The root tree comes from packages by way of mmdebstrap, is kept as a tar, and
becomes an ext4 image by ``mkfs.ext4 -d`` without ever being mounted. Every run
boots that image as a snapshot, so all runs start from the same clean disk.

Rule: what changes from run to run travels in the job (see :mod:`arena.job`),
never in the image.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from arena import host
from arena.errors import BuildError, HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

KERNEL_PACKAGE = "linux-image-cloud-amd64"
PACKAGES = (
    *("systemd", "systemd-sysv", "systemd-oomd", "dbus"),
    *("earlyoom", "nohang", "oomd", "python3-minimal", "libpython3-stdlib"),
    *("kmod", "procps", "util-linux", "e2fsprogs", "busybox-static", "tmux", "make"),
)
"""What every guest holds. Others come by ``--extra-packages`` into a guest of their own."""

MASKED_UNITS = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer"),
    *("e2scrub_all.timer", "fstrim.timer", "systemd-binfmt.service"),
    *("systemd-update-utmp.service", "proc-sys-fs-binfmt_misc.automount"),
    *("sys-kernel-debug.mount", "dev-hugepages.mount", "dev-mqueue.mount"),
    *("systemd-ask-password-console.path", "sys-kernel-tracing.mount"),
    # The kernel makes all device nodes a guest needs; udev's coldplug costs half of the boot
    # under software emulation, and its workers die in the middle of a measurement.
    *("systemd-udevd.service", "systemd-udev-trigger.service", "systemd-udevd-kernel.socket"),
    *("systemd-udevd-control.socket", "modprobe@.service", "systemd-modules-load.service"),
    *("systemd-pcrphase.service", "systemd-pcrphase-sysinit.service", "systemd-sysusers.service"),
)
"""Nothing that wakes up by itself may run during a measurement; also saves boot time."""

JOURNAL = """\
[Journal]
Storage=volatile
ForwardToConsole=yes
TTYPath=/dev/ttyS0
MaxLevelConsole=info
RuntimeMaxUse=8M
"""
IMAGE_MIB = 1600
IMAGES_KEPT = 4
BIG_FILE_MIB = 400
SERVICE_FILE_MIB = 32
SMALL_FILES = 200
FORMAT = "1"
"""Part of the stamp: raise it when the way the image is made changes."""

OVERLAY = Path(__file__).parent / "guest" / "overlay"
INITRAMFS_INIT = Path(__file__).parent / "guest" / "initramfs-init"


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A Debian release, or two, that the arena makes a guest of."""

    name: str
    kernel: str
    """The kernel's series, for people; the exact version is read from the built guest."""

    release: str = ""
    """The Debian release its packages come from, if that is not its name."""

    kernel_release: str = ""
    """The Debian release its kernel comes from, if that is another."""


SUITES = {
    suite.name: suite
    for suite in (
        Suite(name="bookworm", kernel="6.1"),
        Suite(name="trixie", kernel="6.12"),
        Suite(name="forky", kernel="7.2"),
        # A kernel without process_mrelease, cgroup.kill and memory.reclaim.
        Suite(name="old", kernel="5.10", release="bookworm", kernel_release="bullseye"),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """A built guest on disk."""

    name: str
    folder: Path
    release: str
    """The kernel's own version string."""

    image: str = "root.ext4"
    """Which of the folder's root images: the plain one, or one with a guard installed."""

    @property
    def root_image(self) -> Path:
        """The ext4 image that every run boots as a snapshot."""
        return self.folder / self.image

    @property
    def kernel(self) -> Path:
        """The kernel, as the package ships it."""
        return self.folder / "vmlinuz"

    @property
    def initramfs(self) -> Path:
        """Busybox and the virtio modules, about 1 MiB."""
        return self.folder / "initramfs.gz"


def guest_name(suite: str, extra_packages: Sequence[str] = ()) -> str:
    """A guest with extra packages is another guest; its folder says which."""
    return "+".join(["guest-" + suite, *sorted(extra_packages)])


def _stamp(suite: str, extra_packages: Sequence[str]) -> tuple[str, str]:
    """Digests of what the tree, and what the image on top of it, is made from."""
    made_of = SUITES[suite]
    words = [made_of.release or suite, KERNEL_PACKAGE, *PACKAGES, "+", *sorted(extra_packages)]
    if made_of.kernel_release:
        words.append(made_of.kernel_release)
    tree = hashlib.sha256("\n".join(words).encode())
    image = tree.copy()
    for path in [INITRAMFS_INIT, *sorted(p for p in OVERLAY.rglob("*") if p.is_file())]:
        image.update(path.relative_to(INITRAMFS_INIT.parent).as_posix().encode())
        image.update(path.read_bytes())
    image.update(repr((FORMAT, MASKED_UNITS, JOURNAL, BIG_FILE_MIB, IMAGE_MIB)).encode())
    return tree.hexdigest(), image.hexdigest()


def ensure(
    suite: str,
    *,
    cache: Path,
    extra_packages: Sequence[str] = (),
    say: Callable[[str], None] = lambda _line: None,
) -> Guest:
    """Return the guest, building what is missing or outdated of it.

    Args:
        suite: a name from :data:`SUITES`.
        cache: the cache folder; the guest gets a folder in it.
        extra_packages: Debian packages beyond :data:`PACKAGES`.
        say: told about slow steps.

    Cost: about 45 s from nothing on two cores, 6 s from a kept tree, nothing when fresh.

    Raises:
        HostError: a tool or the right to build is missing.
        BuildError: a tool failed.
    """
    if suite not in SUITES:
        raise HostError(f"no guest {suite!r}; there are: {', '.join(SUITES)}")
    name = guest_name(suite, extra_packages)
    folder = cache / name
    tree_stamp, image_stamp = _stamp(suite, extra_packages)
    made = folder / image_stamp[:12]
    if not (made / "release").exists():
        host.require({**host.RUN_TOOLS, **host.BUILD_TOOLS}, root=True)
        folder.mkdir(parents=True, exist_ok=True)
        with host.locked(folder):
            if not (made / "release").exists():
                _build(suite, folder, tree_stamp, made, extra_packages, say)
    return Guest(name=name, folder=made, release=(made / "release").read_text().strip())


def _build(
    suite: str,
    folder: Path,
    tree_stamp: str,
    made: Path,
    extra_packages: Sequence[str],
    say: Callable[[str], None],
) -> None:
    tree = folder / "tree.tar"
    if _read(folder / "tree.stamp") != tree_stamp:
        say(f"building {folder.name} from packages (about a minute)")
        _bootstrap(suite, tree, extra_packages)
        (folder / "tree.stamp").write_text(tree_stamp)
    say(f"making the image of {folder.name}")
    # Images of other versions of this code are kept: several checkouts share a cache.
    older = sorted(
        (path for path in folder.iterdir() if (path / "release").exists()),
        key=lambda path: path.stat().st_mtime,
    )
    for path in older[: -IMAGES_KEPT + 1]:
        shutil.rmtree(path)
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    _make_image(tree, made)


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _run(*command: str | Path, cwd: Path | None = None) -> bytes:
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, capture_output=True, check=False
    )
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip()[-1500:]
        raise BuildError(f"{command[0]} failed with status {done.returncode}:\n{words}")
    return done.stdout


def _bootstrap(suite: str, tree: Path, extra_packages: Sequence[str]) -> None:
    excludes = [f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("man", "doc", "locale")]
    # Of late, nohang makes its settings from an example among its pages.
    excludes.append("--dpkgopt=path-include=/usr/share/doc/nohang/*")
    mirror = os.environ.get("FORESTALL_ARENA_MIRROR")
    release = SUITES[suite].release or suite
    kernel, sources = KERNEL_PACKAGE, []
    if kernels := SUITES[suite].kernel_release:
        kernel += "/" + kernels
        # The same mirror, one more release of it; apt takes only what is asked for from there.
        add = f's/ {release} main$/ {kernels} main/p" "$1/etc/apt/sources.list"'
        sources = [f'--setup-hook=sed -n "{add} > "$1/etc/apt/sources.list.d/kernel.list"']
    _run(
        "mmdebstrap",
        "--variant=minbase",
        "--components=main",
        "--include=" + ",".join([*PACKAGES, *extra_packages, kernel]),
        *sources,
        '--aptopt=APT::Install-Recommends "false"',
        # A mirror's copy of a testing release may be weeks old; a throwaway guest may be too.
        '--aptopt=Acquire::Check-Valid-Until "false"',
        *excludes,
        '--customize-hook=chroot "$1" useradd --create-home --uid 1000 --shell /bin/bash alex',
        '--customize-hook=chroot "$1" useradd --system --uid 910 --home-dir /srv svc',
        release,
        tree,
        *([mirror] if mirror else []),
    )


def _make_image(tree: Path, folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="root-", dir=folder) as name:
        root = Path(name)
        root.chmod(0o755)
        _run("tar", "-xf", tree, "-C", root)
        release = max(
            (path.name for path in (root / "lib/modules").iterdir()),
            key=lambda text: [int(word) if word.isdigit() else 0 for word in _words(text)],
        )
        shutil.copyfile(root / "boot" / f"vmlinuz-{release}", folder / "vmlinuz")
        _make_initramfs(root, release, folder / "initramfs.gz")
        shutil.rmtree(root / "boot")
        (root / "boot").mkdir()
        _furnish(root)
        image = folder / "root.ext4"
        image.unlink(missing_ok=True)
        with image.open("wb") as file:
            file.truncate(IMAGE_MIB << 20)
        _run("mkfs.ext4", "-q", "-F", "-d", root, image)
    (folder / "release").write_text(release + "\n")


def _words(text: str) -> list[str]:
    return text.replace("-", ".").split(".")


def _furnish(root: Path) -> None:
    shutil.copytree(OVERLAY, root, dirs_exist_ok=True, symlinks=True)
    for script in (root / "usr/local/sbin").iterdir():
        script.chmod(0o755)
    # The stand-in for a session manager: sleep under a name that says what its death means.
    (root / "usr/local/sbin/session-manager").hardlink_to(root / "usr/bin/sleep")
    units = root / "etc/systemd/system"
    for unit in MASKED_UNITS:
        link = units / unit
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")
    journal = root / "etc/systemd/journald.conf.d"
    journal.mkdir(parents=True, exist_ok=True)
    (journal / "console.conf").write_text(JOURNAL)
    # Files that landscape and hogs read. Random bytes: nothing on the way may compress them.
    data = root / "srv/data"
    (data / "small").mkdir(parents=True)
    _fill(data / "archive", BIG_FILE_MIB << 20)
    _fill(data / "table", SERVICE_FILE_MIB << 20)
    for number in range(SMALL_FILES):
        _fill(data / "small" / f"{number:03d}", 4096)


def _fill(path: Path, size: int) -> None:
    with path.open("wb") as file:
        while size:
            block = os.urandom(min(size, 8 << 20))
            file.write(block)
            size -= len(block)


def _make_initramfs(root: Path, release: str, target: Path) -> None:
    """Pack busybox and the modules that find the root disk, in load order."""
    with tempfile.TemporaryDirectory(prefix="initramfs-", dir=target.parent) as name:
        tree = Path(name)
        for folder in ("bin", "dev", "proc", "sys", "modules", "newroot"):
            (tree / folder).mkdir()
        shutil.copyfile(root / "bin/busybox", tree / "bin/busybox")
        (tree / "bin/busybox").chmod(0o755)
        (tree / "bin/sh").symlink_to("busybox")
        shutil.copyfile(INITRAMFS_INIT, tree / "init")
        (tree / "init").chmod(0o755)
        for number, module in enumerate(_modules(root, release)):
            _unpack_module(module, tree / "modules", number)
        names = "\0".join(sorted(str(path.relative_to(tree)) for path in tree.rglob("*")))
        packed = subprocess.run(
            ["cpio", "--create", "--format=newc", "--null", "--quiet"],
            input=names.encode() + b"\0",
            cwd=tree,
            capture_output=True,
            check=True,
        )
        target.write_bytes(gzip.compress(packed.stdout, compresslevel=1))


def _modules(root: Path, release: str) -> list[Path]:
    """List module files in load order, each once; a built-in driver has none."""
    found: dict[Path, None] = {}
    for driver in ("virtio_pci", "virtio_blk", "virtio_console", "ext4"):
        done = subprocess.run(
            ["modprobe", "-d", root, "-S", release, "--show-depends", driver],
            capture_output=True,
            text=True,
            check=False,
        )
        for line in done.stdout.splitlines():
            words = line.split()
            if words and words[0] == "insmod":
                found[Path(words[1])] = None
    return list(found)


def _unpack_module(module: Path, folder: Path, number: int) -> None:
    # Debian 13 ships modules compressed; busybox insmod wants them plain.
    name, data = module.name, module.read_bytes()
    if module.suffix == ".xz":
        name, data = module.stem, lzma.decompress(data)
    elif module.suffix != ".ko":
        raise BuildError(f"cannot unpack the kernel module {name}")
    (folder / f"{number:02d}-{name}").write_bytes(data)
