"""Whose manager is told that a unit went for want of memory: only where the unit goes."""

import pytest

from forestall.core.events import End, Tell
from forestall.core.families import Part, application_of
from forestall.core.managers import system_unit, unit_to_tell
from forestall.core.model import Force, Role, Stage
from forestall.core.policy import step
from forestall.core.rules import DEFAULT_RULES, Limit, Trigger, available
from forestall.core.state import begin
from forestall.core.units import GIB, MIB, SECOND
from forestall.core.value import replace
from tests.fakes.builders import row, sampled, surveyed

WEB = "/system.slice/web.service"
SCOPE = "/user.slice/user-1000.slice/user@1000.service/app.slice/app-mail-1.scope"


def part(*members, kind="process", cgroup=""):
    return Part(members[0], members, kind, 0, 0, cgroup)


def web(pid, parent, **fields):
    return row(pid, 500 * MIB, parent=parent, cgroup=fields.pop("cgroup", WEB), **fields)


INIT = row(1, 4 * MIB, comm="systemd", parent=0)
MAIN = web(200, 1)
WORKERS = (web(201, 200), web(202, 200))
ORPHAN = web(203, 1)
STRANGER = row(300, GIB, cgroup="/system.slice/webby.service")
ROWS = (INIT, MAIN, *WORKERS, ORPHAN, STRANGER)


@pytest.mark.parametrize(
    ("ended", "told"),
    [
        (part(MAIN), WEB),
        (part(MAIN, *WORKERS, kind="family"), WEB),
        (part(WORKERS[0]), ""),
        (part(*WORKERS, kind="orphans"), ""),
        (part(ORPHAN), ""),
        (part(WORKERS[0], MAIN, WORKERS[1], ORPHAN, kind="unit", cgroup=WEB), WEB),
        (part(STRANGER), "/system.slice/webby.service"),
        (part(INIT), ""),
    ],
)
def test_a_service_is_told_when_its_main_process_goes(ended, told):
    """Told of a worker's end it would stop the whole service, for it has OOMPolicy=stop."""
    assert unit_to_tell(ended, ROWS) == told


def test_the_eldest_is_the_main_one_whatever_its_number():
    young, old = web(40, 1, start=9_000), web(4_000, 1, start=10)

    assert unit_to_tell(part(old), (young, old)) == WEB
    assert unit_to_tell(part(young), (young, old)) == ""


def test_a_users_manager_is_known_by_its_name():
    unit = "/user.slice/user-1000.slice/user@1000.service/app.slice/index.service"
    manager = row(900, 4 * MIB, comm="systemd", role=Role.SESSION)
    main, worker = web(901, 900, cgroup=unit), web(902, 901, cgroup=unit)

    assert unit_to_tell(part(main), (manager, main, worker)) == unit
    assert unit_to_tell(part(worker), (manager, main, worker)) == ""


def test_a_scope_has_no_main_process_and_is_told_when_all_of_it_goes():
    manager = row(900, 4 * MIB, comm="systemd", role=Role.SESSION)
    first, second = web(400, 900, cgroup=SCOPE), web(401, 400, cgroup=SCOPE)

    assert unit_to_tell(part(first), (manager, first, second)) == ""
    assert unit_to_tell(part(first, second, kind="family"), (first, second)) == SCOPE
    assert unit_to_tell(part(first), (first, STRANGER)) == SCOPE


def test_a_session_is_never_told():
    """To take a session for ended would end it."""
    shell = row(500, 300 * MIB, cgroup="/user.slice/user-1000.slice/session-3.scope")

    assert unit_to_tell(part(shell), (shell,)) == ""


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        (WEB, WEB),
        (WEB + "/workers/a", WEB),
        (SCOPE, SCOPE),
        ("/system.slice/docker-77.scope/system.slice/db.service", None),
        ("/user.slice/user-1000.slice/user@1000.service/init.scope", ""),
        ("/user.slice/user-1000.slice/session-3.scope", ""),
        ("/init.scope", ""),
        ("/", ""),
        ("", ""),
    ],
)
def test_the_innermost_unit_is_meant(cgroup, unit):
    assert application_of(cgroup) == (cgroup if unit is None else unit)


@pytest.mark.parametrize(
    ("cgroup", "name"), [(WEB + "/workers", "web.service"), (SCOPE, ""), ("/user.slice", "")]
)
def test_only_the_system_managers_units_are_named_to_the_journal(cgroup, name):
    """Lines of a user's unit count only when they come from that user."""
    assert system_unit(cgroup) == name


def test_the_request_and_the_sentence_carry_the_unit():
    rules = replace(
        DEFAULT_RULES, triggers=(Trigger("short", Stage.TERMINATE, (available(Limit(0.04)),)),)
    )
    now_ns = 1000 * SECOND
    hog, bystander = web(200, 1, start=5), row(62, 100 * MIB)
    state, _ = step(begin(rules), sampled(now_ns, 0.03), rules)
    state, asked = step(state, surveyed(now_ns, INIT, hog, bystander), rules)
    later_ns = now_ns + rules.grace_ns + SECOND
    _, harder = step(state, sampled(later_ns, 0.03), rules)
    (end,) = [one for one in asked if isinstance(one, End)]
    (decision,) = [one for one in asked if isinstance(one, Tell) and one.what == "decision"]
    (kill,) = [one for one in harder if isinstance(one, End)]

    assert (end.victims, end.force, end.unit) == ((hog.id,), Force.TERM, WEB)
    assert decision.unit == "web.service"
    assert (kill.force, kill.unit) == (Force.KILL, ""), "one end, one mark"
