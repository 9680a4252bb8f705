"""Hand-made mutants: small mistakes somebody could make in the core, and why they matter.

Each is (file below src/forestall, what is there, what stands there instead, what
would go wrong). The text must occur exactly once, so that a change of the code
cannot quietly disarm a mutant.
"""

from typing import NamedTuple


class Mutant(NamedTuple):
    """One mistake."""

    file: str
    old: str
    new: str
    why: str


MUTANTS = (
    # The policy.
    Mutant(
        "core/policy.py",
        "if memory.available_bytes < ceilings.any_bytes:",
        "if memory.available_bytes > ceilings.any_bytes:",
        "triggers are looked at only while memory is ample",
    ),
    Mutant(
        "core/policy.py",
        "since is not None and now_ns - since >= trigger.hold_ns",
        "since is not None and now_ns - since > trigger.hold_ns",
        "a trigger that holds for 0 ns never fires on its first sample",
    ),
    Mutant(
        "core/policy.py",
        "(since if since is not None else now_ns)",
        "now_ns",
        "a trigger that must hold for a while never has",
    ),
    Mutant(
        "core/policy.py",
        "trigger.stage.rank >= Stage.TERMINATE.rank",
        "trigger.stage.rank >= Stage.WARN.rank",
        "a warning kills",
    ),
    Mutant(
        "core/policy.py",
        "or now <= before:",
        "or now < before:",
        "every reading of vmstat counts as a kill by the kernel",
    ),
    Mutant(
        "core/policy.py",
        "if isinstance(seen.hunt, Calm | Choosing) and seen.memory is not None:",
        "if isinstance(seen.hunt, Calm) and seen.memory is not None:",
        "the kernel has just killed, and we end another one on top",
    ),
    Mutant(
        "core/policy.py",
        "again = level is Level.CRITICAL and due(",
        "again = level is Level.CRITICAL or due(",
        "the level is told again and again",
    ),
    Mutant(
        "core/policy.py",
        "        seen = _out_of_reach(seen, rules, requests)\n    if isinstance",
        "        pass\n    if isinstance",
        "memory that came back in a jump leaves the hunt where it was",
    ),
    # The hunt.
    Mutant(
        "core/hunt.py",
        "if not isinstance(hunt, Ending) or event.victim not in hunt.left:\n        return state, ()\n    left = hunt.left - {event.victim}\n    if left:\n        return replace(state, hunt=replace(hunt, left=left)), ()",
        "if not isinstance(hunt, Ending):\n        return state, ()\n    left = hunt.left - {event.victim} if event.victim in hunt.left else frozenset()\n    if left:\n        return replace(state, hunt=replace(hunt, left=left)), ()",
        "a stranger's death counts",
    ),
    Mutant(
        "core/hunt.py",
        "    left = hunt.left - {event.victim}\n    if left:\n        return replace(state, hunt=replace(hunt, left=left)), ()",
        "    left = frozenset()\n    if left:\n        return replace(state, hunt=replace(hunt, left=left)), ()",
        "a family counts as gone with its first member",
    ),
    Mutant(
        "core/hunt.py",
        "spared = hunt.spared | {event.victim}",
        "spared = hunt.spared",
        "who refused is asked again for ever",
    ),
    Mutant(
        "core/hunt.py",
        "return _again(seen, hunt.spared | hunt.left, acting, requests)",
        "return _again(seen, hunt.spared, acting, requests)",
        "who is stuck is killed again for ever",
    ),
    Mutant(
        "core/hunt.py",
        "        if not urgent and now_ns < hunt.patient_until_ns:\n            return seen",
        "        if now_ns < hunt.patient_until_ns:\n            return seen",
        "falling below the kill limit does not end the patience",
    ),
    Mutant(
        "core/hunt.py",
        "        if not urgent and now_ns < hunt.patient_until_ns:\n            return seen",
        "        if not urgent:\n            return seen",
        "who ignores SIGTERM is waited for without end",
    ),
    Mutant(
        "core/hunt.py",
        "    if now_ns < hunt.patient_until_ns:\n        return seen\n    # Not even SIGKILL",
        "    return seen\n    # Not even SIGKILL",
        "who is stuck is waited for without end",
    ),
    Mutant(
        "core/hunt.py",
        "    if seen.now_ns < hunt.until_ns and not over:\n        return seen",
        "    if not over and waited_ns < 0:\n        return seen",
        "a second victim before the first one's memory is back",
    ),
    Mutant(
        "core/hunt.py",
        "            state = replace(state, hunt=replace(hunt, asked=False))",
        "            state = replace(state, hunt=replace(hunt, asked=True))",
        "a failed survey leaves the guard waiting for ever",
    ),
    Mutant(
        "core/decide.py",
        "Force.KILL if firm else Force.TERM,",
        "Force.KILL,",
        "nobody is ever asked politely",
    ),
    Mutant(
        "core/decide.py",
        "return last_ns is None or now_ns - last_ns >= every_ns",
        "return True",
        "what should be told once a minute floods",
    ),
    Mutant(
        "core/hunt.py",
        "trail = Trail(seen.trail.points[-1:], seen.trail.flows[-1:])",
        "trail = seen.trail",
        "the stall before a death speaks for another one",
    ),
    Mutant(
        "core/hunt.py",
        "tuple(victim for victim in hunt.victims if victim in hunt.left)",
        "hunt.victims",
        "SIGKILL goes to members that have already left",
    ),
    Mutant(
        "core/hunt.py",
        "back_bytes, rules)\n        return replace(_rested(seen, Calm()), dying=still_dying(seen, hunt))",
        "back_bytes, rules)\n        return _rested(seen, Calm())",
        "memory that is back makes the guard forget who is still dying",
    ),
    Mutant(
        "core/hunt.py",
        "            return replace(_rested(seen, Calm()), dying=still_dying(seen, hunt))\n        why",
        "            return _rested(seen, Calm())\n        why",
        "who was asked and may still obey is asked again",
    ),
    Mutant(
        "core/decide.py",
        "if event.now_ns >= ending.patient_until_ns:",
        "if event.now_ns < 0:",
        "who is dying is waited for without end",
    ),
    Mutant(
        "core/policy.py",
        "spared = spared.union(*killed)",
        "spared = spared.union()",
        "who is dying is killed again",
    ),
    # Who.
    Mutant(
        "core/judge.py",
        'return row.standing is not Standing.NEVER and row.state != "Z"',
        'return row.state != "Z"',
        "what a rule protects is ended",
    ),
    Mutant(
        "core/judge.py",
        "rows if _may_end(row) and row.id not in spared",
        "rows if _may_end(row)",
        "who was tried in vain is tried again",
    ),
    Mutant(
        "core/judge.py",
        "    best = max(free, key=lambda row: _order(case, row), default=None)",
        "    best = min(free, key=lambda row: _order(case, row), default=None)",
        "the one who grew least goes",
    ),
    Mutant(
        "core/judge.py",
        "    return case.weights[row.id], row.held_bytes, row.oom_score_adj, row.id.pid",
        "    return row.held_bytes, case.weights[row.id], row.oom_score_adj, row.id.pid",
        "size is guilt",
    ),
    Mutant(
        "core/judge.py",
        "free = [row for row in case.rows if row.standing is not Standing.AVOID]",
        "free = list(case.rows)",
        "to be avoided means nothing",
    ),
    Mutant(
        "core/judge.py",
        "        if never and case.weights[row.id] >= PROTECTED_CULPRIT_SHARE * case.growth:\n            return row",
        "        if never and case.weights[row.id] > case.growth:\n            return row",
        "bystanders die for a growing process that a rule protects",
    ),
    Mutant(
        "core/judge.py",
        "for standing in (Standing.PREFER, Standing.NORMAL, Standing.AVOID):",
        "for standing in (Standing.AVOID, Standing.NORMAL, Standing.PREFER):",
        "the avoided go first",
    ),
    Mutant(
        "core/judge.py",
        "best = max(of_it, key=lambda row: (row.footprint_bytes, row.id.pid), default=None)",
        "best = max(of_it, key=lambda row: row.footprint_bytes, default=None)",
        "a tie depends on the order of the survey, so replay picks another",
    ),
    Mutant(
        "core/judge.py",
        "    dominant = single.blame >= SINGLE_OF_FAMILY_SHARE * family.blame",
        "    dominant = False",
        "the whole browser goes with its leaking tab",
    ),
    # Families.
    Mutant(
        "core/families.py",
        "row.role is Role.NONE",
        "True",
        "login shells and multiplexers are members of a family",
    ),
    Mutant(
        "core/families.py",
        "if len(kin) > 1 and all(touchable(row) for row in kin):",
        "if len(kin) > 1:",
        "a unit goes although a rule protects a member",
    ),
    Mutant(
        "core/families.py",
        "        (root, *rest),",
        "        (*rest, root),",
        "what forks is ended last",
    ),
    Mutant(
        "core/families.py",
        'if part.startswith(("session-", "user@")) or part == "init.scope":',
        'if part == "init.scope":',
        "a whole login session counts as an application",
    ),
    Mutant(
        "core/families.py",
        "key = (row.parent_pid, row.comm, row.uid, row.cgroup)",
        "key = (row.parent_pid, row.comm, 0, row.cgroup)",
        "processes of two users are one family",
    ),
    # Growth.
    Mutant(
        "core/census.py",
        "    now = max(0.0, track.held_bytes - track.short_bytes)\n    drift",
        "    now = 0.0\n    drift",
        "one that has stopped growing is blamed like one that grows",
    ),
    Mutant(
        "core/census.py",
        "short = 0.0 if row.age_ns < SHORT_NS and not first else float(held)",
        "short = 0.0",
        "at the first look everybody has just grown",
    ),
    Mutant(
        "core/census.py",
        "rate = faults * SECOND / span_ns if span_ns > 0 else track.fault_rate",
        "rate = float(faults)",
        "who waits for the disk depends on how often one looks",
    ),
    # Signals.
    Mutant(
        "core/signals.py",
        "return found is not None and _compare(condition, found, condition.number)",
        "return found is None or _compare(condition, found, condition.number)",
        "unknown holds",
    ),
    Mutant(
        "core/signals.py",
        "return found < limit if condition.below else found > limit",
        "return found <= limit if condition.below else found >= limit",
        "a limit is reached one byte early",
    ),
    Mutant(
        "core/signals.py",
        "    if condition.signal is Signal.SWAP_FREE and condition.amount is not None:\n        if memory.swap_total_bytes == 0:\n            return condition.below\n",
        "    if condition.signal is Signal.SWAP_FREE and condition.amount is not None:\n        if memory.swap_total_bytes == 0:\n            return False\n",
        "without swap nothing ever fires",
    ),
    Mutant(
        "core/signals.py",
        "limit = condition.amount.of(memory.swap_total_bytes)",
        "limit = condition.amount.of(memory.total_bytes)",
        "a share of swap is taken of memory",
    ),
    Mutant(
        "core/signals.py",
        "        ceiling = max(ceiling, min(limits))",
        "        ceiling = min(ceiling, min(limits))",
        "the calm tick never looks at a trigger",
    ),
    Mutant(
        "core/signals.py",
        "margin = rules.level_margin_share if rule.level.rank <= current.rank else 0.0",
        "margin = 0.0",
        "levels flap at their border",
    ),
    # Rates.
    Mutant(
        "core/trend.py",
        "if pressure else (None, None)",
        "if pressure else (0, 0)",
        "one failed read of pressure looks like a stall as long as the uptime",
    ),
    Mutant(
        "core/trend.py",
        "    if span_ns < window_ns // 2:\n        return None\n    then_us",
        "    if span_ns <= 0:\n        return None\n    then_us",
        "one sample's stall is taken for the whole window's",
    ),
    Mutant(
        "core/trend.py",
        "    pace = min(\n",
        "    pace = max(\n",
        "one jump is a forecast",
    ),
    Mutant(
        "core/trend.py",
        "    if pace < 1.0:\n        return None\n    return int(headroom *",
        "    if pace < 0.0:\n        return None\n    return int(headroom *",
        "memory at rest divides by zero",
    ),
    Mutant(
        "core/trend.py",
        "return (pages_in + refaults) / moved if moved > 0 else 0.0",
        "return moved / (pages_in + refaults + 1) if moved > 0 else 0.0",
        "swapping out counts as thrash",
    ),
    # Pace.
    Mutant(
        "core/pace.py",
        "FILL_BYTES_PER_S = 16 * GIB",
        "FILL_BYTES_PER_S = 1 * GIB",
        "a fast hog fills memory while the guard sleeps",
    ),
    Mutant(
        "core/pace.py",
        "longest_ns = rules.interval_ns\n",
        "longest_ns = 60 * SECOND\n",
        "a large machine is looked at once a minute",
    ),
    Mutant(
        "core/pace.py",
        "FLOOR_NEAR_NS = 30 * MS",
        "FLOOR_NEAR_NS = 1 * MS",
        "a machine parked at its limit burns a core",
    ),
    Mutant(
        "core/pace.py",
        "since_ns >= max(least_ns, int(state.survey_cost_ns / share))",
        "since_ns >= least_ns",
        "surveys of ten thousand processes take a tenth of a core",
    ),
    # A death that frees nothing; many that grew; a tmpfs that stays.
    Mutant(
        "core/hunt.py",
        "unfreed = None if came_back else _unfreed(seen, hunt, rules)",
        "unfreed = None",
        "the child of the dead goes on with what they shared",
    ),
    Mutant(
        "core/hunt.py",
        "return stall is not None and stall >= UNFREED_SHARE",
        "return True",
        "somebody else ends though nobody waits for memory",
    ),
    Mutant(
        "core/judge.py",
        "    for case in cases:\n        grown = _most_grown(case)",
        "    for case in cases[2:]:\n        grown = _most_grown(case)",
        "a browser ends for workers that each grew a little less than a fifth",
    ),
    Mutant(
        "core/judge.py",
        "max(MIN_FREES_BYTES, GROWER_FREES_SHARE * case.need_bytes)",
        "MIN_FREES_BYTES",
        "a hundred small ones end one after the other",
    ),
    Mutant(
        "core/judge.py",
        "and all(least > meaningful for _, least in views) and elsewhere >= need:",
        "and False:",
        "a browser ends for a tmpfs whose writer is gone",
    ),
    Mutant(
        "core/judge.py",
        "CREPT_SHARE = 0.50",
        "CREPT_SHARE = 0.10",
        "a browser that has just come up ends for six workers that grow",
    ),
    # Standing aside, and reading back.
    Mutant(
        "core/pace.py",
        "if not isinstance(state.hunt, Calm) or spare_bytes * SECOND < ASIDE_NS * fill_per_s:",
        "if not isinstance(state.hunt, Calm):",
        "the guard sleeps in a survey while the last of memory goes",
    ),
    Mutant(
        "core/pace.py",
        "if not isinstance(state.hunt, Calm) or spare_bytes * SECOND < ASIDE_NS * fill_per_s:",
        "if spare_bytes * SECOND < ASIDE_NS * fill_per_s:",
        "the guard stands aside in the middle of a hunt",
    ),
    # Going before everybody.
    Mutant(
        "core/pace.py",
        "if kept_ns < KEPT_NS or kept_ns >= STARVED_NS:",
        "if kept_ns >= STARVED_NS:",
        "a guard that gets the processor when it asks still clears one for itself",
    ),
    Mutant(
        "core/pace.py",
        "return kept_ns >= STARVED_NS",
        "return False",
        "a fork storm of burners keeps the guard from looking",
    ),
    Mutant(
        "core/pace.py",
        "return isinstance(state.hunt, Choosing)",
        "return True",
        "the guard takes the processor from the dying and from those who wait for their memory",
    ),
    Mutant(
        "core/pace.py",
        "return pace * KEPT_TIMES * kept_ns > max(0, _room_bytes(memory, ceilings)) * SECOND",
        "return True",
        "late once, the guard weighs on everybody whatever is left and however slowly it goes",
    ),
    Mutant(
        "core/pace.py",
        "max(late_ns, kept_ns - kept_ns // KEPT_PART)",
        "late_ns",
        "one punctual wake-up, and a starved guard goes with the others again",
    ),
    Mutant(
        "guard/priority.py",
        "self._may_change = refusal is None and self._hurried < relaxed",
        "self._may_change = True",
        "what a service manager gave is given up, and a chosen nice value with it",
    ),
    Mutant(
        "relief/serve.py",
        "self._hurry(urgent=False)",
        "pass",
        "after its first victim relief goes before everybody for good",
    ),
    Mutant(
        "guard/aside.py",
        "if self._since_ns >= rest.until_ns or not nothing_new(rest, seen):",
        "if self._since_ns >= rest.until_ns:",
        "memory falls while the guard stands aside, and it goes on doing so",
    ),
    Mutant(
        "core/policy.py",
        "event.now_ns - event.began_ns - event.paused_ns",
        "event.now_ns - event.began_ns",
        "a survey that is considerate becomes a rare one",
    ),
    Mutant(
        "relief/read_back.py",
        "if spare_bytes < 0:",
        "if False:",
        "what is read back makes memory short again",
    ),
    Mutant(
        "relief/read_back.py",
        "key=lambda one: (one.swap_bytes, one.pid), reverse=True)",
        "key=lambda one: (one.swap_bytes, one.pid))",
        "a shell waits behind a browser",
    ),
    Mutant(
        "relief/read_back.py",
        "if now_ns - self._began_ns > DEADLINE_NS:",
        "if False:",
        "a machine that reads by itself is read for without end",
    ),
    Mutant(
        "relief/read_back.py",
        "< self._waiters + AHEAD",
        ">= 0",
        "whoever waits for a page stands behind hundreds of requests",
    ),
    Mutant(
        "relief/lanes.py",
        "or has_room(device)):",
        "or all(map(has_room, self._turns))):",
        "a disk that is behind holds up what lies on another",
    ),
    # Who makes the others wait.
    Mutant(
        "core/judge.py",
        "for rows in (reading, waiting, case.rows):",
        "for rows in (waiting, case.rows):",
        "a browser that waits goes for a job that reads files by calls",
    ),
    Mutant(
        "core/refaults.py",
        "if most < READER_PAGES_PER_S or most < READER_SHARE * everybody:",
        "if most < READER_PAGES_PER_S:",
        "where everybody reads back, one is said to make the others wait",
    ),
    Mutant(
        "core/refaults.py",
        "now_ns - rate.now_ns > STALE_NS",
        "False",
        "who read long ago is said to make the others wait now",
    ),
    # Not looking again.
    Mutant(
        "core/foregone.py",
        "if age_ns > AGE_NS or not _dear(seen):",
        "if not _dear(seen):",
        "somebody is ended for what was seen long ago",
    ),
    Mutant(
        "core/foregone.py",
        "if age_ns > AGE_NS or not _dear(seen):",
        "if age_ns > AGE_NS:",
        "nobody looks again where looking is cheap",
    ),
    Mutant(
        "core/foregone.py",
        "rivals = found.verdict.rivals + (1 + NOW_WEIGHT) * lost_bytes",
        "rivals = found.verdict.rivals",
        "a newer hog goes free and an older one ends for it",
    ),
    Mutant(
        "core/foregone.py",
        "if event.leaving or part.frees_bytes < MIN_FREES_BYTES:",
        "if part.frees_bytes < MIN_FREES_BYTES:",
        "memory that is on its way back costs another life",
    ),
    Mutant(
        "core/foregone.py",
        "least_bytes=int(HOLDS_SHARE * held_bytes)",
        "least_bytes=0",
        "whoever let go of its memory is ended for having had it",
    ),
    Mutant(
        "guard/confirm.py",
        "if held >= request.least_bytes:",
        "if held >= 0:",
        "the guard does not ask before it acts on an old choice",
    ),
    Mutant(
        "kernel/fill.py",
        "found = MARGIN * cpus * TRY_BYTES",
        "found = MARGIN * TRY_BYTES",
        "one processor is watched for, and all of them fill memory",
    ),
    # Others, and those who come back.
    Mutant(
        "core/others.py",
        "not event.leaving or seen.now_ns < others.rest_until_ns",
        "not event.leaving",
        "a storm of processes that come and go holds the guard's hand for ever",
    ),
    Mutant(
        "core/others.py",
        "if not fresh or coming_bytes < _wanted_bytes(seen, hunt, memory, rules):",
        "if not fresh:",
        "a small process that leaves delays a decision",
    ),
    Mutant(
        "core/others.py",
        "one.id not in others.awaited and ",
        "",
        "one death is waited for again and again",
    ),
    Mutant(
        "core/others.py",
        " and one.id not in hunt.spared",
        "",
        "whoever did not go for us is waited for again",
    ),
    Mutant(
        "core/others.py",
        "return max(missing_bytes, LEAST.of(memory.total_bytes))",
        "return LEAST.of(memory.total_bytes)",
        "a death that cannot end the shortage is waited for",
    ),
    Mutant(
        "core/others.py",
        "return hunt.foreign and headroom_bytes",
        "return headroom_bytes",
        "our own victim is given up while its memory comes back",
    ),
    Mutant(
        "core/others.py",
        "DRAINED_SHARE = 0.5",
        "DRAINED_SHARE = 0.0",
        "memory runs out during a wait for somebody else's victim",
    ),
    Mutant(
        "core/repeats.py",
        "return all(row.age_ns < since_ns for row in part.members)",
        "return True",
        "sisters ended one after the other are called a loop",
    ),
    Mutant(
        "core/repeats.py",
        "now_ns - before.last_ns <= WINDOW_NS",
        "now_ns >= before.last_ns",
        "an end a week ago counts as the same loop",
    ),
    Mutant(
        "core/repeats.py",
        "return replace(state, ends=(*others, ended)[-ENDS_MAX:]), ended",
        "return replace(state, ends=(*others, ended)), ended",
        "every end of a year is remembered",
    ),
    Mutant(
        "core/managers.py",
        'return unit if main is not None and main.id in ended else ""',
        'return unit if main is not None else ""',
        "a worker's end stops the whole service",
    ),
    Mutant(
        "core/managers.py",
        '    if not unit.endswith(".service"):\n        return ""',
        '    if not unit:\n        return ""',
        "one process of a scope stops all of it",
    ),
    # The effect.
    Mutant(
        "effects/end.py",
        "if self._identify(victim.pid) != victim or self._dry_run:",
        "if self._dry_run:",
        "a recycled PID is ended",
    ),
    Mutant(
        "effects/end.py",
        "if self._identify(victim.pid) != victim or self._dry_run:",
        "if self._identify(victim.pid) != victim:",
        "a dry run kills",
    ),
    Mutant(
        "effects/end.py",
        "        if victim.pid in self._never:\n            return Refused",
        "        if victim.pid in {0, 1}:\n            return Refused",
        "the guard ends itself",
    ),
    Mutant(
        "effects/end.py",
        "self._never = never | {0, 1}",
        "self._never = never",
        "init may be signalled",
    ),
    Mutant(
        "effects/end.py",
        "        if any(victim.pid in self._never for victim in request.victims):\n            return False",
        "        if not request.victims:\n            return False",
        "cgroup.kill takes a shielded member along",
    ),
    Mutant(
        "effects/end.py",
        "return all(pid not in self._never and self._may_go(pid) for pid in strangers)",
        "return all(pid not in self._never for pid in strangers)",
        "cgroup.kill takes along whom a rule protects and no survey showed",
    ),
    Mutant(
        "effects/end.py",
        "_SIGNALS = {Force.TERM: signal.SIGTERM, Force.KILL: signal.SIGKILL}",
        "_SIGNALS = {Force.TERM: signal.SIGTERM, Force.KILL: signal.SIGTERM}",
        "SIGKILL is not sent",
    ),
    Mutant(
        "effects/end.py",
        "        if left is not None and all(isinstance(one, Refused) for one in news) and not signalled:\n            left()",
        "        if left is not None and not all(isinstance(one, Refused) for one in news):\n            left()",
        "a unit where nobody could be ended is taken for ended later",
    ),
    Mutant(
        "effects/unit_mark.py",
        "raised = max(occasions + 1, now_ns // TICK_NS)",
        "raised = occasions + 1",
        "a service that restarts is told once, and never again",
    ),
    Mutant(
        "effects/unit_mark.py",
        "return int(raw) if raw.isdigit() and len(raw) <= DIGITS_MAX else 0",
        "return int(raw)",
        "what a user wrote to a cgroup stops the guard's kill",
    ),
)
