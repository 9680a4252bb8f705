"""The scene a person sees: scores, memory, the kernel's next victim beside the guard's, and why.

Rule: one look serves the command, the live screen and the JSON; what differs is
only how it is written.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forestall.core.sentence import plain
from forestall.core.units import human_bytes
from forestall.inspect.looking import Looker
from forestall.inspect.ranking import Choice, Ranking, told_choice
from forestall.kernel.clock import boot_ns, now_ns
from forestall.kernel.errors import KernelError
from forestall.kernel.features import find_features
from forestall.kernel.sampler import Sampler

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from forestall.core.model import Holdings, Memory, Pressure, Row
    from forestall.core.rules import Rules
    from forestall.inspect.looking import Look, NextVictim, Scored

CAUTION_SHARE = 0.80
DANGER_SHARE = 0.90
"""The seed's system line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Everything about one moment."""

    now_ns: int
    look: Look
    memory: Memory | None
    pressure: Pressure | None
    guard: Choice
    difference: str
    """Why kernel and guard would take different ones; or that they would not."""
    notes: tuple[str, ...]
    """What cannot be seen from here, and what that means."""

    @property
    def mark(self) -> str:
        """Return ``caution`` above 80 % used, ``danger`` above 90 %, else nothing."""
        if self.memory is None or self.memory.used_share <= CAUTION_SHARE:
            return ""
        return "danger" if self.memory.used_share > DANGER_SHARE else "caution"


class Scores:
    """Looks at the machine for a person, again and again.

    Args:
        rules: What the guard's judgement goes by where no guard tells.
        guard_pid: The running guard, if there is one.
        spare: Processes left out; the command itself unless told otherwise.
        rank: Always work out the guard's judgement here too, for details.
        boot: Clock of process start times; a test's stands still.

    Raises: OSError; KernelError on a kernel without MemAvailable.
    """

    def __init__(
        self,
        rules: Rules,
        *,
        root: str = "/",
        guard_pid: int | None = None,
        spare: frozenset[int] | None = None,
        rank: bool = False,
        boot: Callable[[], int] = boot_ns,
    ) -> None:
        left_out = frozenset({os.getpid()}) if spare is None else spare
        self.looker = Looker(root, spare=left_out)
        self.ranking = Ranking(rules, root=root, guard_pid=guard_pid, spare=left_out, boot_ns=boot)
        self._sampler = Sampler(root)
        self._rank = rank
        features = find_features(root)
        self._container = features.container
        self._hidepid = features.hidepid

    def look(
        self,
        *,
        portraits_max: int | None,
        status: Mapping[str, Any] | None = None,
        pss: bool = False,
        keep: frozenset[int] = frozenset(),
    ) -> Scene:
        """Look at everything once.

        Args:
            status: What the guard answered to GetStatus; None when none answers.

        Raises: OSError; KernelError.
        """
        moment_ns = now_ns()
        sampled = self._sampler.sample(moment_ns, with_activity=False)
        memory = sampled.memory
        told = None if status is None else told_choice(status)
        keep |= {told.pid} if told is not None and told.pid is not None else set()
        # A walk over page tables takes the lock of a process that may be struggling.
        calm = memory.used_share <= DANGER_SHARE
        look = self.looker.look(portraits_max=portraits_max, pss=pss and calm, keep=keep)
        self.ranking.take_over(status)
        guard = self._guard(told, memory, status=status, kernel=look.kernel)
        guard = _still_there(guard, look)
        return Scene(
            now_ns=moment_ns,
            look=look,
            memory=memory,
            pressure=sampled.pressure,
            guard=guard,
            difference=difference(look, guard, self.ranking.rows, only_uid=self.ranking.only_uid),
            notes=self._notes(look),
        )

    def close(self) -> None:
        """Close what is open."""
        self.looker.close()
        self.ranking.close()
        self._sampler.close()

    def _guard(
        self,
        told: Choice | None,
        memory: Memory,
        *,
        status: Mapping[str, Any] | None,
        kernel: NextVictim,
    ) -> Choice:
        agree = told is not None and told.pid == kernel.pid
        if self._rank or status is None or not agree:
            self.ranking.look(now_ns, memory, self._holdings())
        if told is not None:
            return told
        if status is not None:
            return Choice(pid=None, why="the guard has not looked at the processes yet", told=True)
        return self.ranking.choose()

    def _holdings(self) -> Holdings | None:
        try:
            return self._sampler.holdings()
        except (OSError, KernelError):
            return None

    def _notes(self, look: Look) -> tuple[str, ...]:
        notes = []
        if self._hidepid or look.hidden:
            why = "/proc is mounted with hidepid" if self._hidepid else "not all of /proc is ours"
            notes.append(
                f"Other users' processes are hidden ({why}): who is shown first is the first "
                "among those that can be seen. Root sees all."
            )
        if look.sees_all is not True:
            where = f" ({self._container})" if self._container not in {"", "unknown"} else ""
            notes.append(
                f"This is inside a container{where}: the machine's other processes have no number "
                "here, and the kernel may take one of those. At the container's own limit it "
                "takes one of these."
            )
        if look.dropped:
            notes.append(f"{look.dropped} processes could not be read.")
        if look.machine.scale.value == "unknown":
            notes.append("This kernel's oom_score fits no known scale; only raw values are shown.")
        return tuple(notes)


def _still_there(guard: Choice, look: Look) -> Choice:
    # The guard looks seldom while there is no need to; whom it named may have ended since.
    if not guard.told or guard.pid is None:
        return guard
    if any(
        (one.id.pid, one.id.start_ticks) == (guard.pid, guard.start_ticks) for one in look.scored
    ):
        return guard
    if look.hidden:
        return guard
    why = f"{guard.name} ({guard.pid}), whom it named last, is gone"
    return Choice(pid=None, why=why, told=True, age_ns=guard.age_ns)


def difference(
    look: Look, guard: Choice, rows: tuple[Row, ...], *, only_uid: int | None = None
) -> str:
    """Say why the kernel and the guard would not take the same process.

    Args:
        only_uid: Whose processes alone the guard looks after; None: everybody's.
    """
    kernel = look.kernel
    if kernel.pid == guard.pid:
        return "Neither would take anybody." if kernel.pid is None else "Both would take the same."
    if kernel.pid is None:
        return f"The kernel would take nobody: {kernel.why}."
    if guard.pid is None:
        said = "has named nobody" if guard.told else "would end nobody"
        return f"The guard {said}: {guard.why}."
    by_pid = {one.id.pid: one for one in look.scored}
    row = next((row for row in rows if row.id.pid == kernel.pid), None)
    first = by_pid.get(kernel.pid)
    reasons = [
        *_owner_reasons(first, only_uid),
        *_rule_reasons(row),
        *_kernel_reasons(first, look),
        *_guard_reasons(by_pid.get(guard.pid), guard, look),
    ]
    if not reasons:
        reasons = ["the guard goes by growth and by what is freed, the kernel by size"]
    return "They differ: " + "; ".join(reasons) + "."


def _owner_reasons(first: Scored | None, only_uid: int | None) -> list[str]:
    if first is None or only_uid is None or first.uid in {None, only_uid}:
        return []
    return [f"this guard looks after uid {only_uid} alone, and {plain(first.name)} is another's"]


def _rule_reasons(row: Row | None) -> list[str]:
    if row is None or not row.rule:
        return []
    return [f"for the guard, {plain(row.comm)} is {row.standing.value} ({plain(row.rule)})"]


def _kernel_reasons(first: Scored | None, look: Look) -> list[str]:
    if first is None:
        return []
    reasons = []
    name = plain(first.name)
    if (first.oom_score_adj or 0) > 0:
        added = human_bytes((first.oom_score_adj or 0) * look.machine.pages // 1000 * _page(look))
        reasons.append(
            f"oom_score_adj {first.oom_score_adj:+d} makes {name} look {added} larger to the "
            "kernel, and frees nothing"
        )
    mapped = (first.rss_bytes or 0) - (first.anon_bytes or 0)
    if first.anon_bytes is not None and mapped > first.anon_bytes + (first.swap_bytes or 0):
        reasons.append(
            f"{human_bytes(mapped)} of {name} are file and shared pages, which its end need not "
            "free"
        )
    return reasons


def _guard_reasons(first: Scored | None, guard: Choice, look: Look) -> list[str]:
    reasons = []
    if first is not None and (first.oom_score_adj or 0) < 0:
        hidden = human_bytes(-(first.oom_score_adj or 0) * look.machine.pages // 1000 * _page(look))
        reasons.append(
            f"oom_score_adj {first.oom_score_adj} takes {hidden} off {plain(first.name)} in the "
            "kernel's eyes"
        )
    if guard.processes > 1:
        reasons.append(f"the guard ends {guard.name} and {guard.processes - 1} more as one")
    if " grew by " in guard.why.partition(";")[0]:
        reasons.append("the guard goes by who grew, the kernel by size alone")
    return reasons


def _page(look: Look) -> int:
    return look.machine.page_bytes
