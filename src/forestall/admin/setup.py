"""The seeds' menus as one list of steps: a guard, protection, units.

Rule: one guard is left active. Where the menu said "all" and started two, the
other's settings are taken over instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from forestall.admin import follow_unit
from forestall.admin.earlyoom_install import EarlyoomInstaller
from forestall.admin.errors import AdminError
from forestall.admin.files import read_text, write_whole
from forestall.admin.peers import PEERS, active_units, read_here
from forestall.admin.plan import EXPOSE, PROTECT
from forestall.admin.steps import Step
from forestall.admin.units import Units, templates
from forestall.config.read import DROP_IN_DIR, load_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from forestall.admin.commands import Run
    from forestall.admin.imports import Imported
    from forestall.admin.peers import Peer
    from forestall.admin.protect import Protector

FORESTALL, EARLYOOM, NONE = "forestall", "earlyoom", "none"
GUARDS = (FORESTALL, EARLYOOM, NONE)
_NOHANG_DEFAULTS = ("usr/share/nohang/nohang-desktop.conf", "usr/share/nohang/nohang.conf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What somebody wants set up."""

    guard: str = FORESTALL
    take_over: bool = True
    """Import the settings of the killer that is replaced, where they are not its defaults."""
    protect: bool = True
    expose: bool = True
    follow: bool = True
    units: bool = True


@dataclass(slots=True)
class SetupPlan:
    """What would be done, and what not."""

    steps: list[Step] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Setup:
    """Makes the steps.

    Args:
        protector: Makes the protector; called late, because settings change first.
        install_guard: Checks and returns what installs the guard's service.
        earlyoom: Makes what sets up earlyoom.
        install_follow: Installs the service that treats new processes.
        systemd: Whether systemd runs this machine.
        say: Told what is done inside a step.
    """

    def __init__(  # noqa: PLR0913 - seams are parameters
        self,
        run: Run,
        root: Path,
        *,
        protector: Callable[[], Protector],
        install_guard: Callable[[], Callable[[], None]],
        earlyoom: Callable[[], EarlyoomInstaller],
        install_follow: Callable[[], None],
        systemd: bool,
        say: Callable[[str], None],
    ) -> None:
        self._run = run
        self._root = root
        self._protector = protector
        self._install_guard = install_guard
        self._earlyoom = earlyoom
        self._install_follow = install_follow
        self._systemd = systemd
        self._say = say

    def plan(self, choices: Choices) -> SetupPlan:
        """Look at everything and say what would be done, in order.

        Raises: AdminError with what is in the way; ConfigError for wrong settings.
        """
        plan = SetupPlan()
        if choices.guard == FORESTALL:
            self._plan_forestall(choices, plan)
        elif choices.guard == EARLYOOM:
            plan.steps += self._plan_earlyoom()
        self._plan_protection(choices, plan)
        if choices.units:
            self._plan_units(plan)
        return plan

    def _plan_forestall(self, choices: Choices, plan: SetupPlan) -> None:
        rivals = active_units(self._run)
        install = self._install_guard()
        if choices.take_over:
            self._plan_take_over(rivals, plan)
        for unit in rivals:
            plan.notes.append(f"{unit} is turned off, until forestall is uninstalled")
        plan.steps.append(Step("install forestall as a service and start it", install))

    def _plan_take_over(self, rivals: list[str], plan: SetupPlan) -> None:
        """Take over from the first that is active: two would contradict each other."""
        peer = next((peer for peer in PEERS if set(peer.units) & set(rivals)), None)
        if peer is None:
            return
        try:
            got = read_here(peer, self._run, self._root)
        except AdminError:
            return
        if is_default(peer, got, self._root):
            plan.notes.append(f"{peer.name} has its defaults: forestall keeps its own")
            return
        text = got.to_toml()
        load_text(text, source=got.source)
        path = self._root / DROP_IN_DIR / f"50-from-{peer.name}.toml"
        plan.steps.append(
            Step(f"take over the settings of {peer.name}: {path}", lambda: write_whole(path, text))
        )
        plan.notes += [f"not carried over from {peer.name}: {what}" for what in got.lost]

    def _plan_earlyoom(self) -> list[Step]:
        installer = self._earlyoom()
        words = "; ".join(step.text for step in installer.plan())

        def install() -> None:
            for line in installer.install(self._say).splitlines():
                self._say(line)

        return [Step(f"set up earlyoom: {words}", install)]

    def _plan_protection(self, choices: Choices, plan: SetupPlan) -> None:
        halves = [PROTECT] * choices.protect + [EXPOSE] * choices.expose
        if not halves:
            return
        follow = choices.follow and self._systemd and choices.guard == FORESTALL
        if choices.follow and not follow:
            plan.notes.append("new processes are not followed: that takes forestall's service")
        found = self._protector().plan(only=halves, heirs=follow)
        names = {PROTECT: "protect", EXPOSE: "expose"}
        what = " and ".join(names[half] for half in halves)
        text = f"{what}: {len(found.changes)} processes to change now"

        def apply() -> None:
            protector = self._protector()
            for outcome in protector.apply(protector.plan(only=halves, heirs=follow).changes):
                self._say(outcome.describe())

        plan.steps.append(Step(text, apply))
        if follow:
            text = "treat new processes as they come: " + follow_unit.NAME
            plan.steps.append(Step(text, self._install_follow))

    def _plan_units(self, plan: SetupPlan) -> None:
        if not self._systemd:
            plan.notes.append("units are left alone: systemd does not run here")
            return
        units = Units(self._run, self._root)
        for unit in self._known_units():
            try:
                change = units.plan(unit, {}, template=True)
            except AdminError as error:
                plan.notes.append(str(error))
                continue
            values = ", ".join(f"{name}={held}" for name, held in change.settings.items())

            def write(change: object = change) -> None:
                units.apply(change)  # type: ignore[arg-type]

            plan.steps.append(Step(f"{change.path}: {values}", write))
            plan.notes += change.notes

    def _known_units(self) -> list[str]:
        patterns = [pattern for pattern, _ in templates()]
        words = ("systemctl", "list-units", "--plain", "--no-legend", "--type=service", "--")
        lines = self._run(*words, *patterns).out.splitlines()
        return sorted({line.split()[0] for line in lines if line.strip()})


def is_default(peer: Peer, got: Imported, root: Path) -> bool:
    """Tell whether a peer's settings are the ones it comes with."""
    if peer.name == "oomd":
        return False
    texts = [""]
    if peer.name == "nohang":
        texts = [text for path in _NOHANG_DEFAULTS if (text := read_text(root / path))]
    defaults = [peer.read(text, "") for text in texts]
    mine = (got.triggers, got.lists, got.plain)
    return any(mine == (one.triggers, one.lists, one.plain) for one in defaults)
