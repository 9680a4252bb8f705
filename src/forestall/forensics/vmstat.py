"""The kernel's own count of its kills against what the log shows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from forestall.forensics.model import Incident


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """How many kills the kernel counted since boot, and how many the log shows."""

    counted: int | None
    """The ``oom_kill`` counter; None where this kernel does not have it (before 4.13)."""
    logged: int
    suppressed: int
    """Kills the kernel says it did not print."""

    @property
    def sentence(self) -> str:
        """The comparison in words."""
        if self.counted is None:
            return f"{self.logged} kernel kills in the log; this kernel does not count them."
        missing = self.counted - self.logged
        if missing > 0:
            why = f" ({self.suppressed} of them announced as suppressed)" if self.suppressed else ""
            verb = "kill was" if missing == 1 else "kills were"
            return (
                f"The kernel counted {self.counted} since boot, the log shows {self.logged}:"
                f" {missing} {verb} not logged{why}."
            )
        if missing < 0:
            return (
                f"The log shows {self.logged} kernel kills, the kernel counted {self.counted}"
                " since boot: the log reaches back further than this boot, or into another machine."
            )
        return f"The kernel counted {self.counted} since boot, and the log shows all of them."


def oom_kill_counter(vmstat: bytes) -> int | None:
    """Read the ``oom_kill`` line of /proc/vmstat."""
    for line in vmstat.splitlines():
        name, _, number = line.partition(b" ")
        if name == b"oom_kill" and number.strip().isdigit():
            return int(number)
    return None


def reconcile(counter: int | None, incidents: Iterable[Incident]) -> Reconciled:
    """Compare the counter with a log of the same boot."""
    logged = suppressed = 0
    for incident in incidents:
        if incident.agent is None:
            logged += len(incident.victims)
            suppressed += incident.hidden_kills or 0
    return Reconciled(counted=counter, logged=logged, suppressed=suppressed)
