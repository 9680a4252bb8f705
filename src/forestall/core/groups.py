"""Control groups that run into a limit of their own, while the machine has plenty.

Rule: by default this only watches and tells. Kubernetes shows OOMKilled for the
kernel's own kills alone, and a limit is somebody's wish; whoever wants the guard
to be quicker than the kernel says so (``victims.kill_within_cgroup``).

What is decided here never mixes with the hunt: one group at a time, one victim
in it, and a rest after it.
"""

from __future__ import annotations

from forestall.core.events import End, Survey, Tell
from forestall.core.judge import Chosen, judge
from forestall.core.model import Force, Memory, Stage
from forestall.core.sentence import plain
from forestall.core.state import Choosing, GroupTrack, Purpose, Within
from forestall.core.units import MS, SECOND, human_bytes, human_ns, human_share
from forestall.core.value import TYPE_CHECKING, replace

if TYPE_CHECKING:
    from forestall.core.events import Request, Surveyed, Watched
    from forestall.core.model import Group, Row
    from forestall.core.rules import Rules
    from forestall.core.state import State

WARN_SHARE = 0.10
SOON_NS = 60 * SECOND
BRINK_SHARE = 0.03
"""With so little left a group is told of even if nothing moves."""
ACT_SHARE = 0.04
ACT_SOON_NS = 2 * SECOND
STALL_SAID_SHARE = 0.05
TRIGGER = "within-cgroup"
WATCH_CALM_NS = 1 * SECOND
WATCH_NEAR_NS = 100 * MS


def watched(state: State, event: Watched, rules: Rules) -> tuple[State, tuple[Request, ...]]:
    """Take note of how the limited groups stand; ask for a look where one runs out."""
    before = {track.path: track for track in state.groups}
    requests: list[Request] = _kills_told(state, event, before)
    tracks = []
    wanted = None
    for group in event.groups:
        track = _track(state, group, before.get(group.path), event.now_ns)
        if wanted is None and (purpose := _purpose(track, group, event.now_ns, rules)):
            wanted = Within(group.path, purpose, event.now_ns)
        tracks.append(track)
    seen = replace(state, groups=tuple(tracks))
    if seen.within is not None and event.now_ns - seen.within.since_ns >= rules.settle_ns:
        seen = replace(seen, within=None)
    if wanted is None or seen.within is not None or isinstance(seen.hunt, Choosing):
        return seen, tuple(requests)
    return replace(seen, within=wanted), (*requests, Survey())


def look_inside(seen: State, event: Surveyed, rules: Rules) -> tuple[State, tuple[Request, ...]]:
    """Judge those inside the group that runs out, with the survey that was asked for."""
    within = seen.within
    if within is None or within.purpose is Purpose.REST:
        return seen, ()
    track = next((track for track in seen.groups if track.path == within.path), None)
    if track is None:
        return replace(seen, within=None), ()
    rows = tuple(row for row in event.rows if _inside(row, within.path))
    memory = Memory(track.limit_bytes, max(0, track.room_bytes), 0, 0, 0)
    verdict = judge(rows, seen.census, memory, rules, spared=frozenset())
    rest = Within(within.path, Purpose.REST, event.now_ns)
    if within.purpose is Purpose.WARN:
        groups = tuple(
            replace(one, warned_ns=event.now_ns) if one is track else one for one in seen.groups
        )
        told = _warning(seen, track, verdict.why, verdict)
        return replace(seen, within=None, groups=groups), (told,)
    if not isinstance(verdict, Chosen):
        sentence = f"{_name(track.path)} is at its own limit, and {verdict.why}"
        return replace(seen, within=rest), (Tell("nobody", sentence, seen.level, trigger=TRIGGER),)
    part = verdict.part
    victims = tuple(row.id for row in part.members)
    why = f"{_name(track.path)} is at its own limit: {verdict.why}"
    end = End(victims, Force.KILL, why, part.root.comm, part.frees_bytes, part.cgroup, TRIGGER)
    told = Tell(
        "decision",
        f"SIGKILL: {why}",
        seen.level,
        Stage.KILL,
        part.root.id,
        part.root.comm,
        track.left_ns,
        TRIGGER,
    )
    return replace(seen, within=rest), (end, told)


def next_look_ns(state: State) -> int:
    """Say how long after one reading of the limited groups the next one is due."""
    return WATCH_NEAR_NS if is_near(state) else WATCH_CALM_NS


def is_near(state: State) -> bool:
    """Tell whether some group is close to its own limit."""
    return any(track.room_bytes < 2 * WARN_SHARE * track.limit_bytes for track in state.groups)


def _track(state: State, group: Group, known: GroupTrack | None, now_ns: int) -> GroupTrack:
    room = group.limit_bytes - group.usage_bytes + group.reclaimable_bytes
    usable = state.memory.swap_usable_bytes if state.memory is not None else 0
    own = group.swap_room_bytes
    room += usable if own is None else min(own, usable)
    pace = known.pace_per_s if known is not None else 0.0
    if known is not None and now_ns > known.now_ns:
        lost = max(0.0, (known.room_bytes - room) * SECOND / (now_ns - known.now_ns))
        # The mean with the pace before: one jump is no forecast.
        pace = (pace + lost) / 2
    return GroupTrack(
        group.path,
        now_ns,
        group.limit_bytes,
        room,
        pace,
        group.soft,
        group.oom_kills,
        group.stall_full_us,
        _stall(group, known, now_ns),
        known.warned_ns if known is not None else None,
    )


def _stall(group: Group, known: GroupTrack | None, now_ns: int) -> float | None:
    if known is None or known.stall_full_us is None or group.stall_full_us is None:
        return None
    lost_ns = (group.stall_full_us - known.stall_full_us) * 1000
    span_ns = now_ns - known.now_ns
    return min(1.0, max(0.0, lost_ns / span_ns)) if span_ns > 0 else known.stall_share


def _purpose(track: GroupTrack, group: Group, now_ns: int, rules: Rules) -> Purpose | None:
    left_ns = track.left_ns
    act = rules.kill_within_cgroup and not group.soft
    if act and track.room_bytes < ACT_SHARE * track.limit_bytes and _soon(left_ns, ACT_SOON_NS):
        return Purpose.END
    short = track.room_bytes < WARN_SHARE * track.limit_bytes and _soon(left_ns, SOON_NS)
    brink = track.room_bytes < BRINK_SHARE * track.limit_bytes
    again = track.warned_ns is None or now_ns - track.warned_ns >= rules.warn_repeat_ns
    return Purpose.WARN if again and (short or brink) else None


def _soon(left_ns: int | None, limit_ns: int) -> bool:
    return left_ns is not None and left_ns < limit_ns


def _inside(row: Row, path: str) -> bool:
    return row.cgroup == path or row.cgroup.startswith(path + "/")


def _name(path: str) -> str:
    return f"{plain(path.rpartition('/')[2])} ({plain(path)})"


def _warning(seen: State, track: GroupTrack, why: str, verdict: object) -> Tell:
    when = f", about {human_ns(track.left_ns)} at this pace" if track.left_ns is not None else ""
    if track.stall_share is not None and track.stall_share >= STALL_SAID_SHARE:
        when += f"; all in it wait for memory {human_share(track.stall_share)} of the time"
    then = "then the kernel holds it back" if track.soft else "then the kernel ends something in it"
    sentence = (
        f"{_name(track.path)} has {human_bytes(max(0, track.room_bytes))} left of its own limit of "
        f"{human_bytes(track.limit_bytes)}{when}; {then}; inside: {why}"
    )
    root = verdict.part.root if isinstance(verdict, Chosen) else None
    return Tell(
        "group-warning",
        sentence,
        seen.level,
        Stage.WARN,
        root.id if root else None,
        root.comm if root else "",
        track.left_ns,
        TRIGGER,
    )


def _kills_told(state: State, event: Watched, before: dict[str, GroupTrack]) -> list[Request]:
    killed = {}
    for group in event.groups:
        known = before.get(group.path)
        if known is not None and None not in {group.oom_kills, known.oom_kills}:
            killed[group.path] = (group.oom_kills or 0) - (known.oom_kills or 0), group.limit_bytes
    risen = {path: one for path, one in killed.items() if one[0] > 0}
    return [
        Tell(
            "group-kill",
            f"the kernel ended {count} process(es) in {_name(path)}, at its own limit of "
            f"{human_bytes(limit_bytes)}",
            state.level,
            trigger=TRIGGER,
        )
        for path, (count, limit_bytes) in risen.items()
        # The groups above count it too.
        if not any(other.startswith(path + "/") for other in risen)
    ]
