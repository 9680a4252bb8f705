"""Installing the guard as a service, and taking it away without a trace.

What runs as root is a copy that belongs to root, never a link into somebody's
clone. Every file written is in the manifest, with its digest, before the next
one is written; uninstall reads it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from forestall.admin.copies import copy_packages, packages
from forestall.admin.errors import AdminError
from forestall.admin.herald_unit import (
    AGENT_NAME,
    HERALD_NAME,
    render_agent_unit,
    render_herald_unit,
)
from forestall.admin.manifest import Manifest
from forestall.admin.rights import require_root
from forestall.admin.secrets_unit import (
    IMPORTS_SINCE,
    SECRETS_FILE,
    SECRETS_FOLDER,
    render_secrets,
    stored,
    systemd_version,
)
from forestall.admin.swap_grant import (
    GRANT_FILE,
    GRANT_FOLDER,
    render_swap_grant,
    swap_triggers,
)
from forestall.admin.unit_file import LAUNCHER, PREFIX, PYTHON, UNIT_NAME, render_unit
from forestall.config.errors import ConfigError
from forestall.config.example import example_settings
from forestall.config.read import MAIN_FILE, load
from forestall.config.trust import check
from forestall.inspect.killers import UNITS, killer_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from forestall.admin.systemd import Systemd

UNIT_FILE = f"/etc/systemd/system/{UNIT_NAME}"
HERALD_FILE = f"/etc/systemd/system/{HERALD_NAME}"
AGENT_FILE = f"/etc/systemd/user/{AGENT_NAME}"
SETTINGS_FILE = f"/{MAIN_FILE}"
SETTINGS_FOLDERS = ("/etc/forestall/forestall.toml.d", "/etc/forestall")
STATE_FOLDER = "/var/lib/forestall"
KEPT_FOLDERS = (
    *SETTINGS_FOLDERS,
    STATE_FOLDER,
    # systemd keeps what belongs to a DynamicUser= below private, and links to it.
    "/var/lib/private/forestall-herald",
    "/var/log/private/forestall",
)
"""What the services and their settings may leave behind, the innermost first."""
LINKS = ("/var/lib/forestall-herald", "/var/log/forestall")
MANIFEST = "manifest.json"
PYTHON_LEAST = (3, 11)

_LAUNCHER_TEXT = """#!{python} -I
# Written by forestall install; forestall uninstall removes it.
import sys

sys.path.insert(0, "{prefix}")
from forestall.cli.main import main

main()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody asked for."""

    root: Path = Path("/")
    """Everything is written below it; other than / for tests and images."""
    prefix: str = PREFIX
    start: bool = True
    beside: bool = False
    """Install although another killer is active."""
    replace: bool = False
    """Stop and disable the other killers; uninstall enables them again."""


class Installer:
    """Installs and uninstalls.

    Args:
        say: Called with a line for each thing that is done.
        find: Names what is copied; tests have something smaller.
        version: Of systemd here, None if unknown.
        documents: Manual pages and the like, text by place. They are made from the command
            line, which is a floor above.
        effective_uid: Who we are.
    """

    def __init__(  # noqa: PLR0913 - seams are parameters
        self,
        wish: Wish,
        systemd: Systemd,
        say: Callable[[str], None],
        *,
        find: Callable[[], dict[str, Path]] = packages,
        version: Callable[[], int | None] = systemd_version,
        documents: Mapping[str, str] | None = None,
        effective_uid: Callable[[], int] = os.geteuid,
    ) -> None:
        self._find = find
        self._version = version
        self._documents = documents or {}
        self._effective_uid = effective_uid
        self._wish = wish
        self._systemd = systemd
        self._say = say
        self._real = wish.root == Path("/")
        self._use_systemd = self._real and systemd.present()
        self._rivals: list[str] | None = None

    def check(self, *, only_looking: bool = False) -> list[str]:
        """Look whether it can be done; returns the active killers that stand in the way.

        Args:
            only_looking: Somebody wants to know what would be done, which takes no right.

        Raises: NotPermitted; AdminError with what is in the way; ConfigError for wrong settings.
        """
        if self._real and not only_looking:
            require_root("installing a service", effective_uid=self._effective_uid)
        if not self._wish.prefix.startswith("/") or self._wish.prefix.count("/") < 2:
            raise AdminError("the prefix must be a folder of its own, such as " + PREFIX)
        self._check_prefix()
        self._check_python()
        self._find()
        load(root=self._wish.root)
        rivals = self._systemd.active(UNITS) if self._use_systemd else []
        if rivals and not (self._wish.beside or self._wish.replace):
            names = ", ".join(sorted({killer_of(unit) for unit in rivals}))
            raise AdminError(
                f"{names} is active, and two killers fight over one machine; "
                "--replace disables it until uninstall, --beside leaves it running"
            )
        self._rivals = rivals
        return rivals

    def install(self) -> None:
        """Install or upgrade.

        Raises: AdminError; OSError. A failed start leaves everything in place to be
        looked at, and uninstall still takes it away.
        """
        rivals = self.check() if self._rivals is None else self._rivals
        manifest = self._known_manifest() or Manifest(self._wish.prefix)
        self._place_copy(manifest)
        self._write(manifest, LAUNCHER, self._launcher_text(), 0o755)
        if not self._at(SETTINGS_FILE).exists():
            self._write(manifest, SETTINGS_FILE, example_settings(), 0o644)
        self._write(
            manifest,
            UNIT_FILE,
            render_unit(prefix=self._wish.prefix, launcher=LAUNCHER, python=PYTHON),
            0o644,
        )
        prefix = self._wish.prefix
        version = self._version()
        herald = render_herald_unit(
            prefix=prefix, python=PYTHON, imports=version is None or version >= IMPORTS_SINCE
        )
        self._write(manifest, HERALD_FILE, herald, 0o644)
        self._write(manifest, AGENT_FILE, render_agent_unit(launcher=LAUNCHER), 0o644)
        self._grant_swap(manifest)
        self._hand_over_secrets(manifest)
        for path, text in self._documents.items():
            self._write(manifest, path, text, 0o644, quiet=True)
        if self._documents:
            self._say(f"{len(self._documents)} manual pages and completions for shells")
        if self._real:
            check([self._at(self._wish.prefix), self._at(LAUNCHER), self._at(UNIT_FILE)])
        if not self._use_systemd:
            why = "systemd does not run here" if self._real else "this is not the running machine"
            self._say(f"{why}: nothing was started")
            return
        if self._wish.replace:
            self._disable(manifest, rivals)
        self._systemd.do("daemon-reload")
        if self._wish.start:
            self._systemd.do("enable", UNIT_NAME)
            self._systemd.do("restart", UNIT_NAME)
            self._say(f"{UNIT_NAME} is enabled and runs")
            self._systemd.do("enable", HERALD_NAME)
            self._systemd.do("restart", HERALD_NAME)
            self._say(f"{HERALD_NAME} is enabled and runs; notes: forestall agent --help")

    def uninstall(self, *, purge: bool) -> None:
        """Take away what install wrote.

        Args:
            purge: Also changed settings and kept records.

        Raises: AdminError without an installation; OSError.
        """
        manifest = self._known_manifest()
        if manifest is None:
            # What an uninstall without purge has left can still be purged.
            if purge and any(self._at(path).exists() for path in KEPT_FOLDERS):
                self._must_be_root()
                self._purge()
                return
            raise AdminError(f"there is no installation at {self._wish.prefix}")
        self._must_be_root()
        if self._use_systemd and self._at(UNIT_FILE).exists():
            self._systemd.do("disable", "--now", UNIT_NAME)
        if self._use_systemd and self._at(HERALD_FILE).exists():
            self._systemd.do("disable", "--now", HERALD_NAME)
        for path, digest in manifest.files.items():
            self._remove_file(path, digest, purge=purge)
        if purge:
            self._purge()
        self._leave_our_folders()
        if self._use_systemd:
            self._systemd.do("daemon-reload")
            self._enable_again(manifest)
        # Last: while it is there, a second try knows what is left to do.
        self._remove_folder(self._wish.prefix)
        self._leave(reversed(manifest.folders))

    # Checks.

    def _must_be_root(self) -> None:
        if self._real:
            require_root("uninstalling", effective_uid=self._effective_uid)

    def _check_prefix(self) -> None:
        prefix = self._at(self._wish.prefix)
        if prefix.exists() and not (prefix / MANIFEST).is_file():
            raise AdminError(f"{prefix} exists and is not an installation of forestall")

    def _check_python(self) -> None:
        if not self._real:
            return
        real = Path(PYTHON).resolve()
        version = _version_of(real)
        if version is None or version < PYTHON_LEAST:
            found = ".".join(map(str, version)) if version else "missing"
            raise AdminError(f"{PYTHON} is {found}; the service needs 3.11 or newer there")
        try:
            check([real])
        except ConfigError as error:
            raise AdminError(f"the interpreter cannot be trusted with root: {error}") from None

    # Writing.

    def _at(self, path: str) -> Path:
        return self._wish.root / path.lstrip("/")

    def _launcher_text(self) -> str:
        return _LAUNCHER_TEXT.format(python=PYTHON, prefix=self._wish.prefix)

    def _place_copy(self, manifest: Manifest) -> None:
        """Build the copy beside, then swap: a running guard never sees half of one."""
        prefix = self._at(self._wish.prefix)
        fresh, old = prefix.with_name(prefix.name + ".new"), prefix.with_name(prefix.name + ".old")
        self._note_new_folders(manifest, self._wish.prefix)
        prefix.parent.mkdir(parents=True, exist_ok=True)
        for left_over in (fresh, old):
            shutil.rmtree(left_over, ignore_errors=True)
        found = self._find()
        copy_packages(found, fresh)
        (fresh / MANIFEST).write_text(manifest.to_json())
        (fresh / MANIFEST).chmod(0o644)
        if prefix.exists():
            prefix.rename(old)
        fresh.rename(prefix)
        shutil.rmtree(old, ignore_errors=True)
        self._say(f"{self._wish.prefix}: a copy of {', '.join(sorted(found))}")

    def _write(
        self, manifest: Manifest, path: str, text: str, mode: int, *, quiet: bool = False
    ) -> None:
        target = self._at(path)
        digest = _digest(text.encode())
        if target.exists() and path not in manifest.files:
            raise AdminError(f"{path} exists and is not ours; move it away first")
        manifest.files[path] = digest
        self._note_new_folders(manifest, path)
        self._save(manifest)
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(target.name + ".forestall-new")
        beside.write_text(text)
        beside.chmod(mode)
        beside.rename(target)
        if not quiet:
            self._say(path)

    def _grant_swap(self, manifest: Manifest) -> None:
        """Let the service switch swap off and on if the settings ask for it, else not."""
        asked = swap_triggers(load(root=self._wish.root).rules)
        if asked:
            self._write(manifest, GRANT_FILE, render_swap_grant(), 0o644)
            self._say(
                f"the settings have swap recycled ({', '.join(asked)}): for that the service gets "
                "CAP_SYS_ADMIN, swapon and swapoff, the machine's mounts and the block devices; "
                "without such a trigger, the next install takes them back"
            )
        else:
            self._take_back(manifest, GRANT_FILE)

    def _hand_over_secrets(self, manifest: Manifest) -> None:
        """Say which secrets are missing; name the others for a systemd that cannot find them."""
        paths = stored(load(root=self._wish.root).channels)
        here = [path for path in paths.values() if self._at(path).is_file()]
        for channel, path in paths.items():
            if path not in here:
                self._say(
                    f"the secret of alerts.{channel} is missing: write it into {path} (mode 0600), "
                    "then run forestall install again"
                )
        version = self._version()
        if here and version is not None and version < IMPORTS_SINCE:
            self._write(manifest, SECRETS_FILE, render_secrets(here), 0o644)
        else:
            self._take_back(manifest, SECRETS_FILE)

    def _take_back(self, manifest: Manifest, path: str) -> None:
        """Remove what an earlier install wrote and this one has no use for."""
        if path in manifest.files:
            self._remove_file(path, manifest.files.pop(path), purge=False)
            self._save(manifest)

    def _note_new_folders(self, manifest: Manifest, path: str) -> None:
        new = [str(parent) for parent in Path(path).parents if not self._at(str(parent)).exists()]
        manifest.folders = [*manifest.folders, *reversed(new)]

    def _save(self, manifest: Manifest) -> None:
        (self._at(self._wish.prefix) / MANIFEST).write_text(manifest.to_json())

    def _known_manifest(self) -> Manifest | None:
        try:
            return Manifest.from_json((self._at(self._wish.prefix) / MANIFEST).read_text())
        except FileNotFoundError:
            return None

    # Rivals.

    def _disable(self, manifest: Manifest, rivals: list[str]) -> None:
        enabled = self._systemd.enabled(UNITS)
        manifest.replaced = sorted({*manifest.replaced, *enabled})
        manifest.restart = sorted({*manifest.restart, *rivals})
        self._save(manifest)
        for unit in sorted({*enabled, *rivals}):
            self._systemd.do("disable", "--now", unit)
            self._say(f"{unit} is disabled until uninstall")

    def _enable_again(self, manifest: Manifest) -> None:
        for unit in manifest.replaced:
            self._systemd.do("enable", unit)
            self._say(f"{unit} is enabled again")
        for unit in manifest.restart:
            self._systemd.do("start", unit)

    # Removing.

    def _remove_file(self, path: str, digest: str, *, purge: bool) -> None:
        target = self._at(path)
        try:
            held = _digest(target.read_bytes())
        except FileNotFoundError:
            return
        if path == SETTINGS_FILE and held != digest and not purge:
            self._say(f"{path} was changed and stays; --purge removes it")
            return
        target.unlink()
        self._say(f"{path} is removed")

    def _remove_folder(self, path: str) -> None:
        target = self._at(path)
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
            self._say(f"{path} is removed")

    def _purge(self) -> None:
        for path in reversed(KEPT_FOLDERS):
            self._remove_folder(path)
        self._remove_dead_links()

    def _leave_our_folders(self) -> None:
        """Remove our folders where nothing of anybody's is left in them."""
        for path in self._leave((*KEPT_FOLDERS, GRANT_FOLDER, SECRETS_FOLDER)):
            self._say(f"{path} is not empty and stays; uninstall --purge removes it")
        self._remove_dead_links()

    def _remove_dead_links(self) -> None:
        for path in LINKS:
            link = self._at(path)
            if link.is_symlink() and not link.exists():
                link.unlink()

    def _leave(self, paths: Iterable[str]) -> list[str]:
        """Remove folders that are empty; returns those that are not."""
        stay = []
        for path in paths:
            target = self._at(path)
            if target.is_symlink() or not target.is_dir():
                continue
            try:
                target.rmdir()
            except OSError:
                stay.append(path)
        return stay


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def _version_of(python: Path) -> tuple[int, int] | None:
    """Read the version out of the file's name, or out of our own if it is our interpreter."""
    if python == Path(sys.executable).resolve():
        return sys.version_info[:2]
    _, _, digits = python.name.partition("python")
    major, dot, minor = digits.partition(".")
    if not dot or not major.isdigit() or not minor.isdigit():
        return None
    return int(major), int(minor)
