"""earlyoom as the first seed's installer meant it: one line of options that this version has.

Rule: everything is looked at before anything is changed, every file's old text is
kept, and two killers are never left active together unasked.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from forestall.admin.commands import PACKAGES_TIMEOUT_S, must, properties
from forestall.admin.earlyoom_options import Wanted, environment_file, unknown_to
from forestall.admin.errors import AdminError
from forestall.admin.files import read_text, write_whole
from forestall.admin.peers import GUARD_UNIT, active_units
from forestall.admin.steps import Step

if TYPE_CHECKING:
    from collections.abc import Callable

    from forestall.admin.commands import Run

UNIT = "earlyoom.service"
PROGRAM = "earlyoom"
STATE_FILE = "var/lib/forestall/peers.json"
DEFAULT_FILE = "/etc/default/earlyoom"
MANAGERS: tuple[tuple[str, tuple[tuple[str, ...], ...], tuple[str, ...]], ...] = (
    (
        "apt-get",
        (("apt-get", "update"), ("apt-get", "install", "-y", "--no-install-recommends", PROGRAM)),
        ("apt-get", "remove", "-y", PROGRAM),
    ),
    ("dnf", (("dnf", "install", "-y", PROGRAM),), ("dnf", "remove", "-y", PROGRAM)),
    (
        "zypper",
        (("zypper", "--non-interactive", "install", PROGRAM),),
        ("zypper", "--non-interactive", "remove", PROGRAM),
    ),
    (
        "pacman",
        (("pacman", "-S", "--needed", "--noconfirm", PROGRAM),),
        ("pacman", "-R", "--noconfirm", PROGRAM),
    ),
)
_ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive"}


@dataclass(slots=True)
class Kept:
    """What was here before us."""

    package: bool
    """Whether we installed the package."""
    path: str
    text: str | None
    """What the settings file said; None where there was none."""
    active: bool
    enabled: bool
    disabled: list[str] = field(default_factory=list)
    """Units that were turned off to make room."""


class EarlyoomInstaller:
    """Installs, sets up and removes earlyoom.

    Args:
        wanted: What its options should say.
        beside: Install although another killer is active.
        replace: Turn the other killers off; remove turns them on again.
        which: Finds a program.
    """

    def __init__(
        self,
        run: Run,
        root: Path = Path("/"),
        *,
        wanted: Wanted | None = None,
        beside: bool = False,
        replace: bool = False,
        which: Callable[[str], str | None] = shutil.which,
    ) -> None:
        self._run = run
        self._root = root
        self._words = (wanted or Wanted()).words()
        self._beside = beside
        self._replace = replace
        self._which = which

    def plan(self) -> list[Step]:
        """Look at everything and say what would be done, in order.

        Raises: AdminError with what is in the way.
        """
        try:
            text = environment_file(self._words)
        except ValueError as error:
            raise AdminError(str(error)) from None
        rivals = self._rivals()
        if rivals and not (self._beside or self._replace):
            raise AdminError(
                f"{', '.join(rivals)} is active, and two killers fight over one machine; "
                "--replace turns it off until remove, --beside leaves it running"
            )
        steps = []
        if self._which(PROGRAM) is None:
            steps += [
                Step(" ".join(words), _later(self._package, words)) for words in self._fetch()
            ]
            check = "check the options against the version that was installed"
            steps.append(Step(check, self._validate))
        else:
            self._validate()
        line = text.splitlines()[-1]
        steps.append(Step(f"write {self._settings_file()}: {line}", lambda: self._write(text)))
        if self._replace:
            steps += [Step(f"disable {unit}", _later(self._disable, unit)) for unit in rivals]
        steps.append(Step(f"enable and restart {UNIT}", self._start))
        return steps

    def install(self, say: Callable[[str], None]) -> str:
        """Do it; returns what systemctl status says.

        Raises: AdminError; OSError. What was done until then, remove takes back.
        """
        steps = self.plan()
        self._keep()
        for step in steps:
            step.perform()
            say(step.text)
        return self._run("systemctl", "status", "--no-pager", "--lines", "5", UNIT).out

    def plan_removal(self) -> list[Step]:
        """Say what remove would do, in order.

        Raises: AdminError when it was not installed by us.
        """
        kept = self._kept()
        if kept is None:
            raise AdminError(
                f"earlyoom was not set up by forestall; systemctl disable --now {UNIT} turns it off"
            )
        steps = []
        if kept.package or not kept.active:
            steps.append(self._do(f"stop {UNIT}", "stop", UNIT))
        if kept.package or not kept.enabled:
            steps.append(self._do(f"disable {UNIT}", "disable", UNIT))
        path = self._root / kept.path.lstrip("/")
        text = kept.text
        if text is None:
            steps.append(Step(f"remove {kept.path}", lambda: path.unlink(missing_ok=True)))
        else:
            steps.append(
                Step(f"write {kept.path} as it was", lambda: write_whole(path, text)),
            )
        if kept.package:
            words = next(row[2] for row in MANAGERS if self._which(row[0]))
            steps.append(Step(" ".join(words), _later(self._package, words)))
        elif kept.active:
            steps.append(self._do(f"restart {UNIT}", "restart", UNIT))
        steps += [
            self._do(f"enable {unit} again", "enable", "--now", unit) for unit in kept.disabled
        ]
        return [*steps, Step("forget what was here before", (self._root / STATE_FILE).unlink)]

    def remove(self, say: Callable[[str], None]) -> None:
        """Take it away and bring back what was here.

        Raises: AdminError when it was not installed by us; OSError.
        """
        for step in self.plan_removal():
            step.perform()
            say(step.text)

    # Looking.

    def _rivals(self) -> list[str]:
        units = [unit for unit in active_units(self._run) if unit != UNIT]
        guard = properties(self._run, GUARD_UNIT, "ActiveState").get("ActiveState")
        return units + ([GUARD_UNIT] if guard in {"active", "activating"} else [])

    def _fetch(self) -> tuple[tuple[str, ...], ...]:
        for name, words, _remove in MANAGERS:
            if self._which(name):
                return words
        names = ", ".join(row[0] for row in MANAGERS)
        raise AdminError(f"earlyoom is not here, and neither is any of {names} to install it")

    def _validate(self) -> None:
        """Ask the installed program itself, twice: does it list them, does it take them."""
        known = self._run(PROGRAM, "--help")
        unknown = unknown_to(known.out + known.err, self._words)
        if unknown:
            version = (known.out + known.err).strip().splitlines()[:1]
            raise AdminError(f"{' '.join(version)} has no {', '.join(unknown)}")
        # Options are read in order: what is wrong stops it before it comes to its help.
        done = self._run(PROGRAM, *self._words, "-h")
        if not done.ok:
            told = (done.err or done.out).strip().splitlines()
            raise AdminError(f"earlyoom refuses these options: {told[-1] if told else done.status}")

    def _settings_file(self) -> str:
        held = properties(self._run, UNIT, "EnvironmentFiles").get("EnvironmentFiles", "")
        path = held.split(" (")[0].strip()
        return path if path.startswith("/") else DEFAULT_FILE

    # Changing.

    def _keep(self) -> None:
        if self._kept() is not None:
            return  # A second installation: what was here at first is what comes back.
        path = self._settings_file()
        state = properties(self._run, UNIT, "ActiveState", "UnitFileState")
        self._save(
            Kept(
                package=self._which(PROGRAM) is None,
                path=path,
                text=read_text(self._root / path.lstrip("/")),
                active=state.get("ActiveState") == "active",
                enabled=state.get("UnitFileState") == "enabled",
            )
        )

    def _kept(self) -> Kept | None:
        text = read_text(self._root / STATE_FILE)
        if text is None:
            return None
        try:
            return Kept(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise AdminError(f"{self._root / STATE_FILE} is damaged: {error}") from None

    def _save(self, kept: Kept) -> None:
        write_whole(self._root / STATE_FILE, json.dumps(asdict(kept), indent=1) + "\n", mode=0o600)

    def _package(self, words: tuple[str, ...]) -> None:
        done = self._run(*words, timeout_s=PACKAGES_TIMEOUT_S, environment=_ENVIRONMENT)
        must(done, words)

    def _write(self, text: str) -> None:
        write_whole(self._root / self._settings_file().lstrip("/"), text)

    def _disable(self, unit: str) -> None:
        kept = self._kept()
        if kept is not None and unit not in kept.disabled:
            kept.disabled.append(unit)
            self._save(kept)
        self._systemctl("disable", "--now", unit)

    def _start(self) -> None:
        self._systemctl("enable", UNIT)
        self._systemctl("restart", UNIT)
        state = properties(self._run, UNIT, "ActiveState").get("ActiveState")
        if state not in {"active", "activating"}:
            raise AdminError(f"{UNIT} is {state}; systemctl status {UNIT} says why")

    def _do(self, text: str, *words: str) -> Step:
        return Step(text, lambda: self._systemctl(*words))

    def _systemctl(self, *words: str) -> None:
        must(self._run("systemctl", *words), ("systemctl", *words))


def _later(action: Callable[..., None], argument: object) -> Callable[[], None]:
    return lambda: action(argument)
