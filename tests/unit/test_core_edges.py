"""Edges of the core that mutants showed to be unguarded: limits, windows, families, ties."""

from itertools import permutations

import pytest

from forestall.core.census import Census, blame_of, count
from forestall.core.events import End, Gone, Sampled, Survey
from forestall.core.families import application_of, families, touchable, unit_name
from forestall.core.judge import Chosen, judge
from forestall.core.model import Force, Pressure, Role, Stage, Standing
from forestall.core.policy import step
from forestall.core.rules import (
    DEFAULT_RULES,
    Limit,
    Signal,
    Trigger,
    above,
    available,
    swap_free,
)
from forestall.core.signals import acting_ceiling_bytes, ceiling_bytes, holds
from forestall.core.state import Calm, Choosing, Ending, Settling, begin
from forestall.core.trend import Trail, stall_share
from forestall.core.units import GIB, MIB, MS, SECOND
from forestall.core.value import replace
from tests.fakes.builders import activity, memory, row, sampled, surveyed

START_NS = 1000 * SECOND


def rules(*triggers, **changes):
    return replace(DEFAULT_RULES, triggers=triggers, **changes)


OUT = Trigger("out", Stage.KILL, (available(Limit(0.02)),))
HOG, OTHER = row(60, 9 * GIB, comm="hog"), row(61, 2 * GIB, comm="other")


def play(events, under):
    """Step through events; returns the last state and every request, step by step."""
    state, asked = begin(under), []
    for event in events:
        state, requests = step(state, event, under)
        asked.append(requests)
    return state, asked


# Limits.


def test_a_limit_is_crossed_by_one_byte_and_not_reached():
    condition = available(Limit(size_bytes=GIB))
    at = memory(1.0, total=16 * GIB)._replace(available_bytes=GIB)

    assert not holds(condition, Trail(), 0, at)
    assert holds(condition, Trail(), 0, at._replace(available_bytes=GIB - 1))


def test_a_share_of_swap_is_a_share_of_swap():
    condition = swap_free(Limit(0.5))

    assert not holds(condition, Trail(), 0, memory(0.5, total=64 * GIB, swap=4 * GIB))
    assert holds(condition, Trail(), 0, memory(0.5, total=GIB, swap=4 * GIB, swap_free=GIB))
    assert holds(condition, Trail(), 0, memory(0.5, swap=0)), "no swap is none left"


def test_the_ceiling_is_that_of_the_most_watchful_trigger():
    two = rules(OUT, Trigger("low", Stage.WARN, (available(Limit(0.10)),)))

    assert ceiling_bytes(two, memory(0.5, total=100 * GIB)) == 10 * GIB
    assert acting_ceiling_bytes(two, memory(0.5, total=100 * GIB)) == 2 * GIB


def test_a_trigger_without_a_limit_on_memory_is_always_in_reach():
    stall = Trigger("stall", Stage.KILL, (above(Signal.STALL_FULL, 0.5, SECOND),))

    assert ceiling_bytes(rules(OUT, stall), memory(0.5, total=100 * GIB)) == 100 * GIB


def test_the_strictest_condition_of_a_trigger_is_its_ceiling():
    both = Trigger("both", Stage.KILL, (available(Limit(0.10)), available(Limit(0.05))))

    assert ceiling_bytes(rules(both), memory(0.5, total=100 * GIB)) == 5 * GIB


def test_a_warning_never_acts():
    warn = Trigger("low", Stage.WARN, (available(Limit(0.5)),))
    state, asked = play(
        [
            e
            for n in range(9)
            for e in (sampled(n * SECOND + 1, 0.1), surveyed(n * SECOND + 1, HOG))
        ],
        rules(warn),
    )

    assert isinstance(state.hunt, Calm)
    assert not any(isinstance(r, End) for requests in asked for r in requests)


def test_one_step_asks_for_one_survey():
    """A warning and a hunt on the same sample: the second look would only delay the first."""
    warn = Trigger("low", Stage.WARN, (available(Limit(0.5)),))
    _, asked = play(
        [sampled(START_NS, 0.9), surveyed(START_NS, HOG), sampled(START_NS + 5 * SECOND, 0.01)],
        rules(warn, OUT),
    )

    assert sum(isinstance(request, Survey) for request in asked[-1]) == 1


def test_a_kill_by_the_kernel_is_seen_while_we_are_choosing():
    state, _ = play(
        [
            sampled(START_NS, 0.5, activity=activity()),
            surveyed(START_NS, HOG, OTHER),
            sampled(START_NS + SECOND, 0.01),
        ],
        rules(OUT),
    )
    later, _ = step(
        state, sampled(START_NS + 2 * SECOND, 0.01, activity=activity(oom_kill=1)), rules(OUT)
    )

    assert isinstance(state.hunt, Choosing)
    assert isinstance(later.hunt, Settling)
    assert later.hunt.trigger == "kernel-kill"


def test_the_same_count_of_kernel_kills_is_no_news():
    events = [sampled(START_NS + n * SECOND, 0.5, activity=activity(oom_kill=7)) for n in range(3)]
    _, asked = play(events, rules(OUT))

    assert not any(getattr(r, "what", "") == "kernel-kill" for rs in asked for r in rs)


# The hunt.


def ending(force, victims=(HOG.id,), left=None, since_ns=START_NS, patient_ns=5 * SECOND):
    state, _ = play([sampled(START_NS, 0.01)], rules(OUT))
    hunt = Ending(
        victims,
        frozenset(victims if left is None else left),
        force,
        "out",
        "hog",
        "",
        since_ns,
        since_ns + patient_ns,
        9 * GIB,
        100 * MIB,
    )
    return replace(state, hunt=hunt)


def test_sigkill_goes_to_those_who_are_left_only():
    state = ending(Force.TERM, victims=(HOG.id, OTHER.id), left=(OTHER.id,))
    _, requests = step(state, sampled(START_NS + SECOND, 0.01), rules(OUT))
    (end,) = [r for r in requests if isinstance(r, End)]

    assert end.victims == (OTHER.id,)


def test_the_stall_before_a_death_does_not_speak_for_another_one():
    stall = Trigger("stall", Stage.KILL, (above(Signal.STALL_FULL, 0.5, SECOND),))
    state = begin(rules(stall))
    for n in range(30):
        sample = Sampled(START_NS + n * 100 * MS, memory(0.5), Pressure(n * 90_000, n * 90_000))
        state, _ = step(state, sample, rules(stall))
    now_ns = START_NS + 3 * SECOND
    before = stall_share(state.trail, now_ns, SECOND, full=True)
    state = replace(state, hunt=ending(Force.KILL).hunt)
    state, _ = step(state, Gone(now_ns, HOG.id), rules(stall))

    assert before > 0.5
    assert stall_share(state.trail, now_ns, SECOND, full=True) is None


def test_a_second_victim_waits_for_the_memory_of_the_first():
    state, _ = step(ending(Force.KILL), Gone(START_NS + 10 * MS, HOG.id), rules(OUT))
    asked = []
    for n in range(1, 29):
        state, requests = step(state, sampled(START_NS + n * 100 * MS, 0.01), rules(OUT))
        asked += [r for r in requests if isinstance(r, Survey)]
    waiting = state.hunt
    state, _ = step(state, sampled(START_NS + 3100 * MS, 0.01), rules(OUT))

    assert asked == []
    assert isinstance(waiting, Settling)
    assert isinstance(state.hunt, Choosing)


# Who grew.


def test_at_the_first_look_nobody_has_grown_just_now():
    """When the guard starts, everything is new to it; youth alone is no guilt."""
    young = row(70, GIB, age_s=1)
    old = row(71, GIB, age_s=3600)
    first = count(Census(), START_NS, (young, old), 0)
    later = count(count(Census(), START_NS, (old,), 0), START_NS + SECOND, (young, old), 0)

    assert blame_of(first, young.id).growth_bytes == blame_of(first, young.id).recent_bytes
    assert blame_of(later, young.id).growth_bytes > 5 * blame_of(later, young.id).recent_bytes
    assert blame_of(later, old.id).growth_bytes == 0


def test_one_that_has_stopped_is_blamed_less_than_one_that_grows():
    """Both have taken as much over the last half minute."""
    census = Census()
    for n in range(21):
        stopped = row(70, min(n, 10) * 100 * MIB)
        growing = row(71, n * 50 * MIB)
        census = count(census, START_NS + n * SECOND, (stopped, growing), 0)

    assert blame_of(census, growing.id).growth_bytes > 2 * blame_of(census, stopped.id).growth_bytes


@pytest.mark.parametrize("every_ns", [200 * MS, SECOND])
def test_the_rate_of_faults_does_not_depend_on_how_often_one_looks(every_ns):
    census = Census()
    for n in range(int(30 * SECOND / every_ns)):
        waiting = row(70, GIB, major_faults=int(n * every_ns * 20 / SECOND))
        census = count(census, START_NS + n * every_ns, (waiting,), 0)

    assert abs(blame_of(census, waiting.id).fault_rate - 20) < 1


def test_who_was_not_counted_is_not_blamed():
    assert blame_of(Census(), HOG.id).growth_bytes == 0


# Families.


def total(_row):
    return 1


def test_a_part_is_named_and_ended_root_first():
    maker = row(90, MIB, comm="make")
    kids = [row(80 + n, 50 * MIB, parent=90, comm="cc") for n in range(3)]
    (family,) = [p for p in families((*kids, maker), total) if p.root.id == maker.id]

    assert family.members[0] == maker
    assert len(family.members) == 4


def test_two_users_are_not_one_family_of_orphans():
    mine = [row(80 + n, 50 * MIB, comm="job", uid=1000) for n in range(2)]
    theirs = [row(90 + n, 50 * MIB, comm="job", uid=1001) for n in range(2)]

    assert [p for p in families((*mine, *theirs), total) if p.kind == "orphans"] == []


def test_three_of_a_kind_under_init_are_one():
    kin = [row(80 + n, 50 * MIB, comm="job") for n in range(3)]

    assert [p.kind for p in families(tuple(kin), total)] == ["orphans"]


ID = "3f" * 32
KUBE = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice"


@pytest.mark.parametrize(
    "cgroup",
    [
        "/user.slice/user-1000.slice/session-3.scope",
        "/user.slice/user-1000.slice/session-3.scope/below",
        "/user.slice/user-1000.slice/user@1000.service",
        "/user.slice/user-1000.slice/user@1000.service/app.slice",
        "/user.slice/user-1000.slice/user@1000.service/init.scope",
        "/init.scope",
        "/lxc.payload.web/init.scope",
        "/system.slice",
        "/docker",
        "/docker/" + ID[:-1],
        "/",
        "",
    ],
)
def test_sessions_and_slices_are_no_applications(cgroup):
    assert application_of(cgroup) == ""


@pytest.mark.parametrize(
    ("path", "below"),
    [
        ("/system.slice/nginx.service", ""),
        ("/system.slice/nginx.service", "/workers/1"),
        ("/user.slice/user@1000.service/app.slice/app-editor-77.scope", ""),
        (f"/system.slice/docker-{ID}.scope", ""),
        (f"/docker/{ID}", ""),
        (f"/docker/{ID}", "/system"),
        (f"/machine.slice/libpod-{ID}.scope", "/container"),
        (f"{KUBE}/cri-containerd-{ID}.scope", ""),
        (f"/kubepods/burstable/pod1-2/{ID}", ""),
        ("/machine.slice/systemd-nspawn@a.service/payload/system.slice/web.service", ""),
    ],
)
def test_applications_services_and_containers_are_known_whoever_made_them(path, below):
    assert application_of(path + below) == path


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/system.slice/nginx.service", "nginx.service"),
        (f"/system.slice/docker-{ID}.scope", "docker-3f3f3f3f3f3f"),
        (f"{KUBE}/cri-containerd-{ID}.scope", "cri-containerd-3f3f3f3f3f3f"),
        (f"/docker/{ID}", "container 3f3f3f3f3f3f"),
        ("/app.slice/app-gnome-code-4711.scope", "app-gnome-code-4711.scope"),
    ],
)
def test_a_container_is_named_as_people_know_it(path, name):
    assert unit_name(path) == name


def test_the_groups_that_a_container_keeps_are_one_unit():
    path = f"/machine.slice/libpod-{ID}.scope"
    inside = [row(80 + n, 50 * MIB, comm=f"j{n}", cgroup=f"{path}/c{n}") for n in range(3)]
    (part,) = [
        part
        for part in families((*inside, row(90, MIB, cgroup="/machine.slice")), total)
        if part.kind == "unit"
    ]

    assert part.cgroup == path
    assert {one.id.pid for one in part.members} == {80, 81, 82}


@pytest.mark.parametrize(
    "odd",
    [{"standing": Standing.NEVER}, {"standing": Standing.AVOID}, {"role": Role.SESSION}],
)
def test_a_unit_with_a_protected_member_is_not_ended_as_one(odd):
    unit = "/system.slice/job.service"
    plain = [row(80 + n, 50 * MIB, comm=f"j{n}", cgroup=unit) for n in range(2)]
    shielded = row(90, MIB, comm="keeper", cgroup=unit, **odd)

    assert [p.kind for p in families(tuple(plain), total)] == ["unit"]
    assert not touchable(shielded)
    assert families((*plain, shielded), total) == []


# Ties and orders.


def test_the_verdict_is_a_total_order_even_among_equals():
    """Replay has to pick whom production picked, in whatever order the survey came."""
    rows = (row(60, GIB), row(61, GIB), row(62, GIB))
    census = count(Census(), START_NS, rows, 0)
    picked = set()
    for order in permutations(rows):
        found = judge(order, census, memory(0.02), DEFAULT_RULES, spared=frozenset())
        assert isinstance(found, Chosen)
        picked.add(found.part.root.id.pid)

    assert len(picked) == 1


def test_an_avoided_one_goes_last_when_nobody_grew():
    rows = (
        row(60, 6 * GIB, standing=Standing.AVOID, rule="avoid"),
        row(61, 2 * GIB),
        row(62, GIB, standing=Standing.PREFER, rule="prefer"),
    )
    census = count(Census(), START_NS, rows, 0)
    chosen = []
    spared = frozenset()
    for _ in rows:
        found = judge(rows, census, memory(0.099, total=16 * GIB), DEFAULT_RULES, spared=spared)
        chosen.append(found.part.root.id.pid)
        spared |= {found.part.root.id}

    assert chosen == [62, 61, 60]


def test_one_with_half_of_its_familys_growth_goes_alone_when_that_is_enough():
    """A tab that leaks among tabs that breathe: the browser need not go with it."""
    census = Census()
    for n in range(8):
        main = row(300, 400 * MIB, comm="browser")
        tabs = [row(301 + k, (90 + 4 * n) * MIB, parent=300, comm="tab") for k in range(10)]
        leaker = row(330, (900 + 40 * n) * MIB, parent=300, comm="tab")
        rows = (main, *tabs, leaker)
        census = count(census, START_NS + n * SECOND, rows, 0)
    found = judge(rows, census, memory(0.08, total=8 * GIB), DEFAULT_RULES, spared=frozenset())

    assert [member.id.pid for member in found.part.members] == [330]
