"""The kill path on real processes: children of this test, and in each test one that must live."""

import errno
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from forestall.core.events import End, Gone, Refused
from forestall.core.model import Force, ProcessId
from forestall.effects.end import FOLDERS_MAX, STRANGERS_MAX, EndProcess
from forestall.guard.glance import cgroup2_root
from forestall.kernel.errors import KernelFormatError
from forestall.kernel.processes import identify

DEATH_MS = 10_000
HOG_UNIT = "/app.slice/app-hog.scope"
DEAF = (
    "import signal; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); signal.pause()"
)
FAMILY = """
import os, signal
for _ in range({count}):
    if os.fork() == 0:
        signal.pause()
print("ready", flush=True)
signal.pause()
"""


def lives(child):
    """Wait for the death that must not come."""
    try:
        child.wait(timeout=0.05)
    except subprocess.TimeoutExpired:
        return True
    return False


def ended(pidfd):
    """Wait for a death that must come; the pidfd says so."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(DEATH_MS))


def start(code=None):
    argv = ["sleep", "60"] if code is None else [sys.executable, "-I", "-S", "-c", code]
    child = subprocess.Popen(argv, stdout=subprocess.PIPE if code else None, text=True)
    if code:
        assert child.stdout.readline() == "ready\n"
        child.stdout.close()
    return child


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def children():
    """Start children on demand; all are buried afterwards."""
    started = []

    def begin(code=None):
        started.append(start(code))
        return started[-1]

    yield begin
    for child in started:
        child.kill()
        child.wait()


@pytest.fixture
def bystander(children):
    return children()


@pytest.fixture
def ender():
    """An ender that is armed: it never touches this test's own process or parent."""
    armed = []

    def make(who=identify, *, never=(), **options):
        options.setdefault("dry_run", False)
        shielded = frozenset({os.getpid(), os.getppid(), *never})
        armed.append(EndProcess(who, never=shielded, **options))
        return armed[-1]

    yield make
    for one in armed:
        one.forget()


def request(*victims, force=Force.KILL, cgroup=""):
    return End(victims, force, "test", "sleep", 0, cgroup)


def test_the_victim_ends_and_its_pidfd_tells(children, bystander, ender):
    victim = identify(children().pid)
    end = ender()

    news = end.perform(request(victim), 7)
    (pidfd,) = end.watched

    assert news == []
    assert ended(pidfd)
    assert end.gone(pidfd, 8) == Gone(8, victim)
    assert end.watched == {}
    assert lives(bystander)


def test_a_recycled_pid_is_left_alone(bystander, ender):
    """Same number, other start time: our victim is gone, the stranger lives."""
    now = identify(bystander.pid)
    earlier = ProcessId(now.pid, now.start_ticks - 1)
    end = ender()

    news = end.perform(request(earlier), 7)

    assert news == [Gone(7, earlier)]
    assert end.watched == {}
    assert lives(bystander)


def test_a_pid_recycled_between_the_look_and_the_signal_is_left_alone(bystander, ender):
    """The identity is read after the pidfd is opened, so the one read last counts."""
    victim = ProcessId(bystander.pid, 5)
    answers = iter([ProcessId(bystander.pid, 6)])

    news = ender(lambda _pid: next(answers)).perform(request(victim), 1)

    assert news == [Gone(1, victim)]
    assert lives(bystander)


def test_a_pid_that_came_back_as_a_thread_is_left_alone(bystander, ender):
    """Threads share the number space; no pidfd can be had of one."""
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    victim = ProcessId(thread.native_id, 1)

    news = ender().perform(request(victim, force=Force.TERM), 1)
    stop.set()
    thread.join()

    assert news == [Gone(1, victim)]
    assert lives(bystander)


def test_a_number_nobody_has_is_gone(bystander, ender):
    child = subprocess.Popen(["true"])
    victim = identify(child.pid)
    child.wait()

    assert ender().perform(request(victim), 1) == [Gone(1, victim)]
    assert lives(bystander)


def test_a_victim_that_ignores_sigterm_is_ended_by_sigkill(children, bystander, ender):
    deaf = children(DEAF)
    victim = identify(deaf.pid)
    end = ender()

    asked = end.perform(request(victim, force=Force.TERM), 1)
    (pidfd,) = end.watched
    ignored = lives(deaf)
    told = end.perform(request(victim, force=Force.KILL), 2)

    assert asked == told == []
    assert ignored
    assert list(end.watched) == [pidfd], "the same descriptor serves both signals"
    assert ended(pidfd)
    assert deaf.wait() == -signal.SIGKILL
    assert lives(bystander)


def test_a_stopped_victim_is_ended_by_sigkill_and_a_stopped_bystander_stays_stopped(
    children, bystander, ender
):
    """Somebody froze them (Ctrl-Z, a debugger): SIGTERM waits, SIGKILL does not."""
    frozen, stopped = children(), children()
    for child in (frozen, stopped):
        child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
    victim = identify(frozen.pid)
    end = ender()

    end.perform(request(victim, force=Force.TERM), 1)
    waits = lives(frozen)
    end.perform(request(victim, force=Force.KILL), 2)

    assert waits
    assert frozen.wait(DEATH_MS / 1000) == -signal.SIGKILL
    assert Path(f"/proc/{stopped.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    assert lives(bystander)


def test_a_family_goes_root_first_and_every_death_is_told(children, bystander, ender):
    """The maker must not fork another while its children are ended."""
    maker = children(FAMILY.format(count=6))
    listing = Path(f"/proc/{maker.pid}/task/{maker.pid}/children").read_text()
    kids = [identify(int(pid)) for pid in listing.split()]
    root = identify(maker.pid)
    order = []

    def watchful(pid):
        order.append(pid)
        return identify(pid)

    end = ender(watchful)
    news = end.perform(request(root, *kids), 1)
    told = [end.gone(pidfd, 2).victim for pidfd in list(end.watched) if ended(pidfd)]

    assert news == []
    assert len(kids) == 6
    assert order[0] == root.pid
    assert sorted(told) == sorted([root, *kids])
    assert lives(bystander)


def test_one_that_has_left_does_not_keep_the_rest_of_a_family(children, bystander, ender):
    here = identify(children().pid)
    left = ProcessId(here.pid, here.start_ticks + 1)
    end = ender()

    news = end.perform(request(left, here), 3)

    assert news == [Gone(3, left)]
    assert list(end.watched.values()) == [here]
    assert lives(bystander)


def test_a_refusal_is_a_value(bystander, ender):
    """EPERM, as from a security module; raised by the call, answered as news."""
    victim = identify(bystander.pid)

    def forbidden(_pidfd, _number):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    end = ender(send=forbidden)
    news = end.perform(request(victim), 4)

    assert news == [Refused(4, victim, "Operation not permitted")]
    assert end.watched == {}
    assert lives(bystander)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_somebody_elses_process_refuses_and_lives(bystander):
    """A guard without privilege meets a process of root's: the kernel's own answer."""
    victim = identify(bystander.pid)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgid(12345)
            os.setuid(12345)
            end = EndProcess(identify, never=frozenset(), dry_run=False)
            os.write(writer, repr(end.perform(request(victim), 4)[0].why).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as said:
        why = said.read()
    os.waitpid(pid, 0)

    assert why == "'Operation not permitted'"
    assert lives(bystander)


def test_who_cannot_be_identified_is_refused_and_not_signalled(bystander, ender):
    victim = identify(bystander.pid)

    def garbled(_pid):
        raise KernelFormatError("stat", "too few fields", b"\n")

    def unreadable(_pid):
        raise OSError(errno.EIO, "Input/output error")

    for who in (garbled, unreadable):
        end = ender(who)
        (news,) = end.perform(request(victim), 1)

        assert isinstance(news, Refused)
        assert end.watched == {}
    assert lives(bystander)


def test_some_numbers_are_refused_whatever_the_policy_says(bystander):
    end = EndProcess(identify, never=frozenset({bystander.pid}), dry_run=False)
    victims = [ProcessId(0, 0), identify(1), identify(bystander.pid)]

    news = end.perform(request(*victims), 1)

    assert [type(one) for one in news] == [Refused] * 3
    assert [one.victim for one in news] == victims
    assert lives(bystander)


def test_a_dry_run_touches_nobody_and_reports_them_gone(children, bystander, ender):
    """Reporting "sent" would send the policy to the next process, as no real run would go."""
    victim = identify(children().pid)
    reaped = []
    end = ender(dry_run=True, reap=reaped.append)

    news = [end.perform(request(victim, force=force), 5) for force in Force]

    assert news == [[Gone(5, victim)]] * 2
    assert end.watched == {}
    assert reaped == []
    assert lives(bystander)
    assert identify(victim.pid) == victim


def test_memory_is_reaped_after_sigkill_and_never_after_sigterm(children, bystander, ender):
    deaf = identify(children(DEAF).pid)
    reaped = []
    end = ender(reap=reaped.append)

    end.perform(request(deaf, force=Force.TERM), 1)
    after_term = list(reaped)
    end.perform(request(deaf, force=Force.KILL), 2)

    assert after_term == []
    assert reaped == list(end.watched)
    assert lives(bystander)


def unit(root, path, *members):
    folder = root / path.lstrip("/")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cgroup.kill").write_text("")
    (folder / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in members))
    return folder / "cgroup.kill"


def test_a_unit_goes_by_cgroup_kill_too(children, bystander, ender, tmp_path):
    """Whatever a member forks between two signals goes with it."""
    killer = unit(tmp_path, HOG_UNIT)
    victim = identify(children().pid)
    end = ender(cgroup_root=str(tmp_path))

    end.perform(request(victim, force=Force.TERM, cgroup=HOG_UNIT), 1)
    after_term = killer.read_text()
    end.perform(request(victim, force=Force.KILL, cgroup=HOG_UNIT), 2)

    assert after_term == ""
    assert killer.read_text() == "1"
    assert lives(bystander)


@pytest.mark.parametrize("how", ["dry", "nobody", "never", "climbs"])
def test_a_unit_is_left_alone_when_its_victims_are(how, children, bystander, ender, tmp_path):
    killer = unit(tmp_path / "cg", HOG_UNIT)
    victim = identify(children().pid)
    gone = ProcessId(victim.pid, 1)
    never = {victim.pid} if how == "never" else set()
    end = ender(cgroup_root=str(tmp_path / "cg"), dry_run=how == "dry", never=never)
    victims = {"nobody": (gone,), "never": (identify(children().pid), victim)}.get(how, (victim,))
    path = "/../cg/app.slice/app-hog.scope" if how == "climbs" else HOG_UNIT

    end.perform(request(*victims, cgroup=path), 1)

    assert killer.read_text() == ""
    assert lives(bystander)


@pytest.mark.parametrize("below", [False, True])
@pytest.mark.parametrize("may_go", [False, True])
def test_a_unit_with_somebody_protected_whom_no_survey_showed_ends_member_by_member(
    below, may_go, children, bystander, ender, tmp_path
):
    """cgroup.kill asks nobody, and takes the groups below with it."""
    victim = identify(children().pid)
    unit(tmp_path, HOG_UNIT + "/payload")
    unit(tmp_path, HOG_UNIT + "/payload/deep", *([bystander.pid] if below else []))
    killer = unit(tmp_path, HOG_UNIT, victim.pid, *([] if below else [bystander.pid]))
    asked = []
    end = ender(cgroup_root=str(tmp_path), may_go=lambda pid: asked.append(pid) or may_go)

    end.perform(request(victim, cgroup=HOG_UNIT), 1)
    (pidfd,) = end.watched

    assert asked == [bystander.pid]
    assert killer.read_text() == ("1" if may_go else "")
    assert ended(pidfd), "the chosen one goes either way"
    assert lives(bystander)


@pytest.fixture
def real_unit():
    """A control group of the kernel's own, with a group below it; gone afterwards."""
    root = cgroup2_root()
    name = f"/forestall-test-{os.getpid()}.scope"
    below = Path(f"{root}{name}/below")
    try:
        below.mkdir(parents=True)
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error.strerror}")
    if not (below.parent / "cgroup.kill").exists():
        below.rmdir()
        below.parent.rmdir()
        pytest.skip("no cgroup.kill before Linux 5.14")
    yield root, name
    for folder in (below, below.parent):
        for pid in (folder / "cgroup.procs").read_text().split():
            Path(f"{root}/cgroup.procs").write_text(pid)
        folder.rmdir()


@pytest.mark.parametrize("may_go", [False, True])
def test_a_real_unit_goes_with_who_forked_unseen_and_not_with_who_is_protected(
    may_go, children, bystander, ender, real_unit
):
    root, name = real_unit
    chosen, unseen = children(), children()
    Path(f"{root}{name}/cgroup.procs").write_text(str(chosen.pid))
    Path(f"{root}{name}/below/cgroup.procs").write_text(str(unseen.pid))
    end = ender(cgroup_root=root, may_go=lambda _pid: may_go)

    end.perform(request(identify(chosen.pid), cgroup=name), 1)

    assert chosen.wait(DEATH_MS / 1000) == -signal.SIGKILL
    if may_go:
        assert unseen.wait(DEATH_MS / 1000) == -signal.SIGKILL
    else:
        assert lives(unseen)
    assert lives(bystander)


@pytest.mark.parametrize("how", ["unreadable", "garbled", "another namespace", "crowd", "wide"])
def test_a_unit_whose_members_are_not_known_ends_member_by_member(
    how, children, bystander, ender, tmp_path
):
    victim = identify(children().pid)
    killer = unit(tmp_path, HOG_UNIT, victim.pid)
    procs = killer.with_name("cgroup.procs")
    if how == "unreadable":
        procs.unlink()
    elif how == "wide":
        for number in range(FOLDERS_MAX + 1):
            unit(tmp_path, f"{HOG_UNIT}/{number}")
    else:
        crowd = "\n".join(str(pid) for pid in range(10_000, 10_001 + STRANGERS_MAX))
        procs.write_text({"garbled": "12 x", "another namespace": "0\n", "crowd": crowd}[how])
    end = ender(cgroup_root=str(tmp_path), may_go=lambda _pid: True)

    end.perform(request(victim, cgroup=HOG_UNIT), 1)
    (pidfd,) = end.watched

    assert killer.read_text() == ""
    assert ended(pidfd)
    assert lives(bystander)


def test_a_unit_without_cgroup_kill_still_loses_its_victims(children, bystander, ender, tmp_path):
    """Before Linux 5.14, or threaded: the signals stand."""
    victim = identify(children().pid)
    end = ender(cgroup_root=str(tmp_path))

    end.perform(request(victim, cgroup="/no/such.scope"), 1)
    (pidfd,) = end.watched

    assert ended(pidfd)
    assert lives(bystander)


def test_more_victims_than_can_be_watched_are_still_ended(children, bystander, ender):
    """Signalled, counted, and reported gone at once, so that the policy does not wait for them."""
    family = [children() for _ in range(4)]
    victims = [identify(child.pid) for child in family]
    end = ender(watched_max=2)

    news = end.perform(request(*victims), 6)

    assert news == [Gone(6, victim) for victim in victims[2:]]
    assert list(end.watched.values()) == victims[:2]
    assert end.unwatched == 2
    assert [child.wait(timeout=10) for child in family] == [-signal.SIGKILL] * 4
    assert lives(bystander)


def test_no_descriptor_is_left_behind(children, bystander, ender):
    victim = identify(children().pid)
    end = ender()
    before = descriptors()

    end.perform(request(ProcessId(victim.pid, 1), ProcessId(2**22 - 1, 1), victim), 1)
    while_watched = descriptors()
    for pidfd in list(end.watched):
        assert ended(pidfd)
        end.gone(pidfd, 2)

    assert while_watched == before + 1
    assert descriptors() == before
    assert end.gone(12345, 3) is None
    assert lives(bystander)


def test_a_zombie_nobody_has_buried_counts_as_gone(children, bystander, ender):
    """Its number is taken until its parent looks; its memory is back all the same."""
    child = children()
    victim = identify(child.pid)
    end = ender()
    end.perform(request(victim), 1)
    (pidfd,) = end.watched
    first = ended(pidfd) and end.gone(pidfd, 2)
    again = end.perform(request(victim), 3)

    assert first == Gone(2, victim)
    assert again == []
    assert ended(next(iter(end.watched)))
    assert lives(bystander)


@pytest.mark.parametrize("name", ["a b", ") Z 1 (", "x\ny", "\x1b[2J", "né"])
def test_a_hostile_name_saves_nobody_and_kills_no_stranger(name, children, bystander, ender):
    code = (
        f"open('/proc/self/comm', 'wb').write({name.encode()!r});"
        "import signal; print('ready', flush=True); signal.pause()"
    )
    victim = identify(children(code).pid)
    end = ender()

    end.perform(request(victim), 1)
    (pidfd,) = end.watched

    assert ended(pidfd)
    assert lives(bystander)
