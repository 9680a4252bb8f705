"""Whom the guard would end: told by the guard that runs, or worked out by its own judgement.

Rule: nothing is re-invented here. The order is what ``core.judge`` answers when
it is asked again without those it has named already.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forestall.core.census import Census, blame_of, count
from forestall.core.judge import Chosen, judge
from forestall.core.model import ProcessId, Role, Standing
from forestall.core.sentence import plain
from forestall.core.standing import Matcher
from forestall.core.units import human_bytes
from forestall.kernel import clock
from forestall.kernel.processes import ProcessTable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from forestall.core.census import Blame
    from forestall.core.model import Holdings, Memory, Row
    from forestall.core.rules import Rules

NOBODY = -1
"""No process has this number: nobody is the guard."""
PLACES_MAX = 50
"""So far down the order is worth working out; each place costs a judgement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Whom the guard would end next."""

    pid: int | None
    """None: nobody."""
    start_ticks: int | None = None
    name: str = ""
    processes: int = 0
    frees_bytes: int | None = None
    why: str = ""
    told: bool
    """The running guard said so; else its rules were asked here, without its memory of who grew."""
    age_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One place in the guard's order."""

    members: tuple[ProcessId, ...]
    choice: Choice


class Ranking:
    """The guard's judgement on this machine, between two looks of a person.

    Args:
        rules: Those in force, or the settings on this machine.
        guard_pid: The guard, so that it and its kin are marked as never to be touched.
        spare: Processes to leave out: the command that asks.
        boot_ns: Clock of process start times; a test's stands still.
    """

    def __init__(
        self,
        rules: Rules,
        *,
        root: str = "/",
        guard_pid: int | None = None,
        spare: frozenset[int] = frozenset(),
        boot_ns: Callable[[], int] = clock.boot_ns,
    ) -> None:
        self._rules = rules
        self._spare = spare
        self._table = ProcessTable(
            root,
            matcher=Matcher(rules.victim_rules),
            own_pid=guard_pid or NOBODY,
            page_bytes=os.sysconf("SC_PAGE_SIZE"),
            clk_tck=os.sysconf("SC_CLK_TCK"),
            boot_ns=boot_ns,
        )
        self._census = Census()
        self._memory: Memory | None = None
        self._holdings: Holdings | None = None
        self.only_uid: int | None = None
        """Whose processes alone the running guard looks after; None: everybody's."""
        self.rows: tuple[Row, ...] = ()
        self.hidden = False

    def look(
        self, now_ns: Callable[[], int], memory: Memory, holdings: Holdings | None = None
    ) -> None:
        """Survey the processes; from the second look on it is known who grew.

        Raises: OSError.
        """
        surveyed = self._table.survey(
            now_ns,
            swap_used=memory.swap_used_bytes > 0,
            warm=True,
            holdings=holdings,
        )
        self.rows = tuple(
            row
            for row in surveyed.rows
            if row.id.pid not in self._spare and self.only_uid in {None, row.uid}
        )
        self.hidden = surveyed.hidden
        self._census = count(self._census, surveyed.now_ns, self.rows, memory.shmem_bytes)
        self._memory, self._holdings = memory, holdings

    def take_over(self, status: Mapping[str, Any] | None) -> None:
        """Take over whom the running guard looks after, and what people told it of some."""
        facts = (status or {}).get("guard")
        facts = facts if isinstance(facts, dict) else {}
        self.only_uid = _integer(facts.get("only_uid"))
        said = facts.get("marks")
        self._table.marks.clear()
        for one in said if isinstance(said, list) else ():
            try:
                process = ProcessId(int(one["pid"]), int(one["start_ticks"]))
                self._table.mark(process, Standing(one["standing"]), str(one["why"]))
            except (KeyError, TypeError, ValueError):
                continue  # a guard of another version

    def choose(self, spared: frozenset[ProcessId] = frozenset()) -> Choice:
        """Say who would be ended next."""
        return self._place(spared).choice

    def order(self, places_max: int = PLACES_MAX) -> list[Place]:
        """List who would be ended one after the other, each as if those before had been spared.

        Cost: a judgement for each place: 1.3 ms for 300 rows.
        """
        places: list[Place] = []
        spared: frozenset[ProcessId] = frozenset()
        while len(places) < places_max:
            place = self._place(spared)
            if not place.members:
                break
            places.append(place)
            spared |= frozenset(place.members)
        return places

    def row_of(self, pid: int) -> Row | None:
        """Find a process in the survey; the small ones are not in it."""
        return next((row for row in self.rows if row.id.pid == pid), None)

    def blame(self, process: ProcessId) -> Blame:
        """Say how far a process answers for the shortage, as far as was seen here."""
        return blame_of(self._census, process)

    def close(self) -> None:
        """Close what is open."""
        self._table.close()

    def _place(self, spared: frozenset[ProcessId]) -> Place:
        assert self._memory is not None, "look first"
        verdict = judge(
            self.rows,
            self._census,
            self._memory,
            self._rules,
            spared=spared,
            holdings=self._holdings,
        )
        if not isinstance(verdict, Chosen):
            return Place(members=(), choice=Choice(pid=None, why=verdict.why, told=False))
        part = verdict.part
        return Place(
            members=tuple(row.id for row in part.members),
            choice=Choice(
                pid=part.root.id.pid,
                start_ticks=part.root.id.start_ticks,
                name=plain(part.root.comm),
                processes=len(part.members),
                frees_bytes=part.frees_bytes,
                why=verdict.why,
                told=False,
            ),
        )


def told_choice(status: Mapping[str, Any]) -> Choice | None:
    """Read the guard's choice out of its status; None while it has not looked yet."""
    said = status.get("next_to_go")
    if not isinstance(said, dict):
        return None
    return Choice(
        pid=_integer(said.get("pid")),
        start_ticks=_integer(said.get("start_ticks")),
        name=str(said.get("name") or ""),
        processes=_integer(said.get("processes")) or 0,
        frees_bytes=_integer(said.get("frees_bytes")),
        why=str(said.get("why") or ""),
        told=True,
        age_ns=_integer(said.get("age_ns")),
    )


def protection(row: Row) -> str:
    """Say in words how the guard's rules see a process."""
    by = f" ({plain(row.rule)})" if row.rule else ""
    words = {
        Standing.NEVER: f"never ended{by}",
        Standing.AVOID: f"ended only if nobody else will do{by}",
        Standing.NORMAL: "no rule says anything about it",
        Standing.PREFER: f"ended rather than others{by}",
    }[row.standing]
    if row.role is Role.SESSION:
        words += "; it holds a session, so nothing above it is ended with it"
    return f"{words}; ending it frees about {human_bytes(row.footprint_bytes)}"


def _integer(found: object) -> int | None:
    return found if isinstance(found, int) and not isinstance(found, bool) else None
