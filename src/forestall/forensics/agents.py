"""Kills by userspace agents, told from their log lines by a table.

Each row has the agent's name, a needle that any of its lines must hold, and a shape.
One more agent is one more row. A shape's groups are named after what they give:
``pid``, ``comm``, ``uid``, ``rss_mib``, ``rss_kib``, ``badness``, ``adj``, ``cgroup``,
``unit``, ``reason``. Agents that spread one kill over several lines have a ``note``
row, remembered until the row that says it was done.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple


class Row(NamedTuple):
    """How one agent says one thing."""

    agent: str
    needle: str
    shape: re.Pattern[str]
    role: str = "kill"
    """``kill``; ``note`` for a line that only names the victim of the kill to come;
    ``cancel`` for one that says the note was not about memory; ``echo`` for a second
    account of a kill, which counts only when the first is missing."""


def _row(agent: str, needle: str, shape: str, role: str = "kill") -> Row:
    return Row(agent, needle, re.compile(shape, re.VERBOSE | re.DOTALL), role)


AGENTS: tuple[Row, ...] = (
    _row(
        "earlyoom",
        " to process ",
        r"""\bsending\ SIG(?:TERM|KILL)\ to\ process\ (?P<pid>\d+)(?:\ uid\ (?P<uid>\d+))?
        \ "(?P<comm>.*?)":\ (?:(?:badness|oom_score)\ (?P<badness>-?\d+),\ )?
        (?:oom_score_adj\ (?P<adj>-?\d+),\ )?(?:VmRSS\ (?P<rss_mib>\d+)\ MiB)?""",
    ),
    _row(
        "earlyoom",
        "with signal",
        r"""\b[Kk]illing\ process\ (?P<pid>\d+)\ "(?P<comm>.*?)"\ with\ signal\ \d+:
        (?:\ badness\ (?P<badness>-?\d+),?)?(?:\ VmRSS\ (?P<rss_mib>\d+)\ MiB)?""",
    ),
    _row(
        "earlyoom",
        "with signal",
        r"""\bKilling\ process\ '(?P<comm>.*?)'\ with\ signal\ \d+,\ pid:\ (?P<pid>\d+),
        (?:\ badness:\ (?P<badness>-?\d+),?)?(?:\ VmRSS:\ (?P<rss_mib>\d+)\ MiB)?""",
    ),
    _row(
        "earlyoom",
        "Killing process",
        r"""\bKilling\ process:\ (?P<comm>.{1,15}?),\ pid:\ (?P<pid>\d+)
        (?:,\ badness:\ (?P<badness>-?\d+))?(?:,\ VmRSS:\ (?P<rss_mib>\d+)\ MiB)?""",
    ),
    _row(
        "earlyoom",
        "Killing process ",
        r"""\bearlyoom(?:\[\d+\])?:\ Killing\ process\ (?P<pid>\d+)\ (?P<comm>[^"'].{0,14})$""",
    ),
    _row(
        "nohang",
        "adness: ",
        r"""\bPID:\ (?P<pid>\d+),\ [Nn]ame:\ (?P<comm>.*?),\ (?:[\w ]+:\ [^,]*,\ )*?
        badness:\ (?P<badness>-?\d+)""",
        "note",
    ),
    _row(
        "nohang",
        "to the victim",
        r"""\b[Ss]end(?:ing)?\ SIG(?:TERM|KILL)\ to\ the\ victim""",
    ),
    _row(
        "nohang",
        "Run the command: ",
        r"""^(?:nohang(?:-desktop)?(?:\[\d+\])?:)?\s*Run\ the\ command:\ """,
    ),
    _row(
        "nohang",
        "Sending SIG",
        r"""\bSending\ SIG(?:TERM|KILL)\ to\ (?P<comm>\S{1,15})\ with\ [Pp]id\ (?P<pid>\d+)""",
    ),
    _row(
        "systemd-oomd",
        " due to ",
        r"""\b(?:Killed|Marked)\ (?P<cgroup>/\S*)(?:\ for\ killing)?\ due\ to
        \ (?P<reason>(?:memory|swap|rule).*)$""",
    ),
    _row(
        "systemd-oomd",
        "systemd-oomd killed",
        r"""(?P<unit>\S+):\ systemd-oomd\ killed\ (?:\d+|some)\ process(?:\(es\)|es)?""",
        "echo",
    ),
    _row(
        "oomd",
        "oomd kill: ",
        r"""\boomd\ kill:\ +(?:[\d.]+\ +){3}(?P<cgroup>\S+)\ +\d+
        (?:\ +(?P<reason>\S.*))?""",
    ),
    _row(
        "talos",
        "SIGKILL to cgroup",
        r"""\[talos\]\ Sending\ SIGKILL\ to\ cgroup\b.*?"cgroup":\s*"(?P<cgroup>[^"]*)\"""",
    ),
    _row(
        "talos",
        "SIGKILL to cgroup",
        r"""\[talos\]\ Sending\ SIGKILL\ to\ cgroup(?:\s+(?P<cgroup>[^{\s]\S*))?""",
    ),
    _row(
        "kubelet",
        "reclaim",
        r"""[Ee]viction\ manager:?\ must\ evict\ pod\(s\)\ to\ reclaim"?\ (?:resourceName=)?
        "?(?P<reason>[\w.-]+)""",
        "note",
    ),
    _row(
        "kubelet",
        "evicted",
        r"""[Ee]viction\ manager:\ pods\ evicted,\ waiting\ for\ pod\ to\ be\ cleaned\ up"
        \ pods=\[?"?(?P<unit>[^"\]]+)""",
    ),
    _row(
        "kubelet",
        "evicted",
        r"""[Ee]viction\ manager:\ pods?\ (?P<unit>\S+)\ (?:is\ )?evicted,\ waiting""",
    ),
    _row(
        "kubelet",
        "evicted successfully",
        r"""[Ee]viction\ manager:\ pod\ (?:is\ evicted\ successfully"\ pod=")?
        (?P<unit>[^"\s]+)(?:"|\ is\ evicted\ successfully)""",
        "echo",
    ),
    _row(
        "lowmemorykiller",
        "lowmemorykiller: Killing",
        r"""lowmemorykiller:\ Killing\ '(?P<comm>[^']*)'\ \((?P<pid>\d+)\)
        (?:,\ adj\ (?P<adj>-?\d+))?""",
    ),
    _row(
        "lmkd",
        "Kill '",
        r"""\bKill\ '(?P<comm>[^']*)'\ \((?P<pid>\d+)\),\ uid\ (?P<uid>\d+),
        \ oom(?:_score)?_adj\ (?P<adj>-?\d+)""",
    ),
    _row(
        "forestall",
        "sent SIG",
        r"""\bforestall(?:\[\d+\])?:\ (?:ended:\ )?sent\ SIG(?:TERM|KILL)\ to\ (?P<pid>\d+)
        \ \((?P<comm>.*?)\)(?=$|\ and\ \d+\ more)""",
    ),
)

_MAX_REMEMBERED = 64


class AgentKill(NamedTuple):
    """One kill that an agent reports."""

    agent: str
    pid: int | None
    comm: str | None
    numbers: dict[str, int]
    cgroup: str | None
    unit: str | None
    reason: str | None


@dataclass(slots=True)
class AgentReader:
    """Reads agent lines in order; remembers what spans several of them."""

    _notes: dict[str, dict[str, str]] = field(default_factory=dict)
    _recent: list[tuple[str, int, str]] = field(default_factory=list)
    """(agent, line, pid, cgroup or unit) of the last kills."""

    def read(self, text: str, program: str | None, line: int) -> AgentKill | None:
        """Read one line; give a kill that was not reported before."""
        subject = f"{program}: {text}" if program else text
        for row in AGENTS:
            if row.needle not in subject:
                continue
            found = row.shape.search(subject)
            if found is not None:
                return self._apply(row, found, line)
        return None

    def _apply(self, row: Row, found: re.Match[str], line: int) -> AgentKill | None:
        given = {name: text for name, text in found.groupdict().items() if text is not None}
        if row.role == "note":
            self._notes[row.agent] = given
            return None
        note = self._notes.get(row.agent, {})
        if row.agent == "kubelet" and not note.get("reason", "memory").startswith("memory"):
            return None
        given = {**note, **given}
        if row.agent == "nohang" and "pid" not in given:
            # Words that others may use too: without a victim named before they say nothing.
            return None
        if self._known(row, given, line):
            return None
        return AgentKill(
            row.agent,
            int(given["pid"][:10]) if "pid" in given else None,
            given.get("comm"),
            _numbers(given),
            given.get("cgroup"),
            given.get("unit"),
            given.get("reason"),
        )

    def _known(self, row: Row, given: dict[str, str], line: int) -> bool:
        # An agent repeats itself while a victim lingers, and its supervisor repeats it.
        key = given.get("pid") or given.get("cgroup") or given.get("unit") or ""
        for agent, when, other in self._recent:
            near = line - when < _NEAR_LINES
            if agent != row.agent or not near:
                continue
            if key == other and "pid" in given:
                return True
            if row.role == "echo" and (key == other or other.endswith(f"/{key}") or not key):
                return True
        self._recent.append((row.agent, line, key))
        del self._recent[:-_MAX_REMEMBERED]
        return False


_NEAR_LINES = 400
_NUMBERS = {"uid": "uid", "badness": "badness", "adj": "oom_score_adj", "rss_kib": "rss_kb"}


def _numbers(given: dict[str, str]) -> dict[str, int]:
    numbers = {name: int(given[group][:19]) for group, name in _NUMBERS.items() if group in given}
    if "rss_mib" in given:
        numbers["rss_kb"] = int(given["rss_mib"][:12]) * 1024
    return numbers
