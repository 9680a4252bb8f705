"""The library: levels, events, handlers that misbehave, threads and asyncio, guard or none."""

import asyncio
import functools
import json
import queue
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import forestall
from forestall import PressureMonitor
from forestall.control.errors import Unreachable
from forestall.control.server import Server
from forestall.core.model import Level
from forestall.core.units import SECOND
from forestall.kernel.clock import now_ns
from forestall.library.event import PressureEvent, Process
from forestall.library.levels import rules_for
from forestall.library.reader import Reader
from forestall.library.stream import GuardStream, rank
from forestall.library.workers import (
    WAITING_MAX,
    Worker,
    is_coroutine_function,
    put_newest,
)
from tests.fakes.proc import GIB_KIB, FakeProc

LONG_S = 10
NOW = 1000 * SECOND


@pytest.fixture
def machine(tmp_path):
    proc = FakeProc(tmp_path)
    proc.meminfo(
        total=16 * GIB_KIB, available=8 * GIB_KIB, swap_total=4 * GIB_KIB, swap_free=1 * GIB_KIB
    )
    proc.write("proc/self/cgroup", "0::/\n")
    proc.write("proc/swaps", "Filename Type Size Used Priority\n")
    proc.process(1, comm="init", parent=0)
    proc.process(10, comm="small", anon_kib=64 * 1024)
    proc.process(11, comm="large", anon_kib=4 * GIB_KIB)
    proc.process(12, comm="medium", anon_kib=1 * GIB_KIB, swap_kib=GIB_KIB)
    return proc


def available(machine, share):
    machine.meminfo(total=16 * GIB_KIB, available=int(16 * GIB_KIB * share))


def monitor_of(machine, **settings):
    defaults = {"interval": 0.05, "use_guard": False, "root": str(machine.root)}
    return PressureMonitor(**(defaults | settings))


def event_of(level="critical"):
    return PressureEvent(
        timestamp=0.0,
        pressure_level=level,
        memory_percent=96.0,
        swap_percent=0.0,
        available_bytes=1,
        total_bytes=2,
        top_processes=(),
    )


# What an event says.


def test_an_event_has_the_fields_of_the_seed(machine):
    with monitor_of(machine) as monitor:
        event = monitor.current()

    assert event.pressure_level == event.level == "normal"
    assert event.memory_percent == 50.0
    assert event.swap_percent == 75.0
    assert event.available_gb == 8.0
    assert event.timestamp > 1_600_000_000


def test_the_largest_above_one_percent_are_named_and_read_like_dicts(machine):
    with monitor_of(machine) as monitor:
        top = monitor.current().top_processes

    assert [process.name for process in top] == ["large", "medium"]
    assert top[0]["pid"] == 11
    assert top[0]["memory_percent"] == 25.0
    with pytest.raises(KeyError):
        top[0]["nothing"]


def test_five_processes_are_named_at_most(machine):
    for pid in range(20, 30):
        machine.process(pid, comm=f"p{pid}", anon_kib=GIB_KIB)
    with monitor_of(machine) as monitor:
        top = monitor.current().top_processes

    assert len(top) == 5


def test_an_event_is_json(machine):
    machine.process(11, comm=b"ev\x1b[31mil\n\xff", anon_kib=4 * GIB_KIB)
    with monitor_of(machine) as monitor:
        text = json.dumps(monitor.current().as_dict())

    assert json.loads(text)["top_processes"][0]["name"] == r"ev\x1b[31mil\n\xff"


def test_the_likely_victim_is_who_the_guard_would_choose(machine):
    with monitor_of(machine) as monitor:
        victim = monitor.current().likely_victim

    assert (victim.pid, victim.name, victim.frees_bytes) == (11, "large", 4 << 30)
    assert "large (11)" in victim.why


def test_init_is_never_the_likely_victim(machine):
    machine.process(1, comm="init", parent=0, anon_kib=12 * GIB_KIB)
    with monitor_of(machine) as monitor:
        victim = monitor.current().likely_victim

    # On a machine that has just been booted, init itself looks as if it had grown.
    assert victim is None or victim.pid == 11


def test_time_left_is_known_once_memory_falls(machine):
    reader = Reader(rules_for(None), str(machine.root))
    shares = (0.5, 0.45, 0.4, 0.35, 0.3)
    for tick, share in enumerate(shares):
        available(machine, share)
        reader.look(NOW + tick * SECOND // 2)
    event = reader.event(NOW + 2 * SECOND, 0, reason="asked")
    reader.close()

    assert event.time_left_s == pytest.approx(3.0, rel=0.1)


# Levels.


@pytest.mark.parametrize(
    ("share", "level"), [(0.31, "normal"), (0.30, "low"), (0.15, "medium"), (0.05, "critical")]
)
def test_the_levels_are_those_of_the_seed(machine, share, level):
    available(machine, share)
    with monitor_of(machine) as monitor:
        found = monitor.current().pressure_level

    assert found == level


def test_thresholds_are_taken_at_their_word(machine):
    available(machine, 0.5)
    with monitor_of(machine, thresholds={"low": 10, "medium": 40, "critical": 90}) as monitor:
        found = monitor.current().pressure_level

    assert found == "medium"


@pytest.mark.parametrize(
    "thresholds",
    [{"lwo": 70}, {"low": 0}, {"critical": 101}, {"low": 90, "medium": 80}, {"medium": 99}],
)
def test_thresholds_that_make_no_sense_are_refused(thresholds):
    with pytest.raises(ValueError, match=r"level|percent|above"):
        rules_for(thresholds)


def test_a_limit_of_our_own_cgroup_counts_when_it_is_nearer(machine):
    machine.write("proc/self/cgroup", "0::/app.slice/web.service\n")
    folder = "sys/fs/cgroup/app.slice/web.service"
    machine.write(f"{folder}/memory.max", f"{1 << 30}\n")
    machine.write(f"{folder}/memory.current", f"{(1 << 30) - (32 << 20)}\n")
    machine.write(f"{folder}/memory.stat", "inactive_file 0\nslab_reclaimable 0\nshmem 0\n")
    machine.process(30, comm="web", anon_kib=900 * 1024, cgroup="/app.slice/web.service")
    with monitor_of(machine) as monitor:
        event = monitor.current()

    assert event.pressure_level == "critical"
    assert event.limit == "/app.slice/web.service"
    assert event.total_bytes == 1 << 30
    assert [process.name for process in event.top_processes] == ["web"]
    assert event.likely_victim.pid == 30


def test_a_generous_limit_of_our_own_does_not_count(machine):
    machine.write("proc/self/cgroup", "0::/app.slice\n")
    machine.write("sys/fs/cgroup/app.slice/memory.max", "max\n")
    machine.write("sys/fs/cgroup/app.slice/memory.current", "1000\n")
    machine.write("sys/fs/cgroup/app.slice/memory.stat", "inactive_file 0\n")
    with monitor_of(machine) as monitor:
        event = monitor.current()

    assert event.limit == ""


# When an event comes.


def turn(monitor, at_ns, news=None):
    event, _pause_s = monitor._turn(news or {}, at_ns)
    return event


def test_calm_says_nothing(machine):
    monitor = monitor_of(machine)

    assert turn(monitor, NOW) is None
    assert turn(monitor, NOW + SECOND) is None


def test_a_change_of_level_is_an_event_both_ways(machine):
    monitor = monitor_of(machine, interval=5)
    turn(monitor, NOW)
    available(machine, 0.1)
    worse = turn(monitor, NOW + SECOND)
    same = turn(monitor, NOW + 2 * SECOND)
    available(machine, 0.6)
    better = turn(monitor, NOW + 3 * SECOND)

    assert (worse.pressure_level, worse.reason) == ("medium", "level")
    assert same is None
    assert better.pressure_level == "normal"


def test_critical_is_repeated_every_interval_and_not_oftener(machine):
    available(machine, 0.01)
    monitor = monitor_of(machine, interval=5)
    reasons = []
    for half_second in range(21):
        event = turn(monitor, NOW + half_second * SECOND // 2)
        reasons.append(event.reason if event else "")

    assert [reason for reason in reasons if reason] == ["level", "critical", "critical"]


def test_it_looks_oftener_when_memory_is_short(machine):
    monitor = monitor_of(machine, interval=5)
    _, calm_s = monitor._turn({}, NOW)
    available(machine, 0.02)
    _, short_s = monitor._turn({}, NOW + SECOND)

    assert calm_s == 5
    assert short_s <= 0.25


def test_a_read_that_fails_is_counted_and_the_monitor_goes_on(machine):
    events = queue.Queue()
    with monitor_of(machine, handlers=[events.put]) as monitor:
        machine.write("proc/meminfo", "nothing\n")
        while monitor.missed == 0:
            threading.Event().wait(0.01)
        available(machine, 0.1)
        event = events.get(timeout=LONG_S)

    assert event.pressure_level == "medium"
    assert monitor.missed >= 1


# Handlers.


def test_handlers_the_queue_and_listeners_all_get_the_event(machine):
    seen = queue.Queue()
    with monitor_of(machine, handlers=[seen.put]) as monitor:
        available(machine, 0.1)
        handled = seen.get(timeout=LONG_S)
        listened = next(iter(monitor.listen()))

    assert handled == listened
    assert handled.pressure_level == "medium"


def test_a_handler_that_raises_hurts_nobody(machine, caplog):
    seen = queue.Queue()

    def raises(_event):
        raise SystemExit("mine")

    with monitor_of(machine, handlers=[raises, seen.put]) as monitor:
        available(machine, 0.1)
        first = seen.get(timeout=LONG_S)
        available(machine, 0.6)
        second = seen.get(timeout=LONG_S)

    assert (first.pressure_level, second.pressure_level) == ("medium", "normal")
    assert monitor.handler_reports()[0].failed == 2
    assert "SystemExit: mine" in monitor.errors[0]
    assert "raises failed" in caplog.text


def test_a_handler_that_hangs_hurts_nobody_and_stop_does_not_wait_for_it(machine):
    seen, release = queue.Queue(), threading.Event()
    monitor = monitor_of(machine, handlers=[lambda _event: release.wait(), seen.put]).start()
    available(machine, 0.1)
    first = seen.get(timeout=LONG_S)
    available(machine, 0.6)
    second = seen.get(timeout=LONG_S)
    hung = monitor.handler_reports()[0]
    monitor.stop()
    release.set()

    assert (first.pressure_level, second.pressure_level) == ("medium", "normal")
    assert hung.busy_s is not None
    assert not monitor.running


def test_what_a_handler_cannot_take_is_dropped_and_counted():
    release = threading.Event()
    worker = Worker(lambda _event: release.wait(), loop=None, on_error=lambda *_: None)
    for _ in range(WAITING_MAX + 3):
        worker.offer(event_of())
    report = worker.report()

    assert report.dropped == 3
    release.set()


def test_the_newest_stay_when_a_queue_is_full():
    waiting = queue.Queue(2)
    dropped = sum(put_newest(waiting, number) for number in range(5))

    assert dropped == 3
    assert [waiting.get(), waiting.get()] == [3, 4]


def test_a_handler_may_stop_the_monitor(machine):
    stopped = threading.Event()

    def stop(_event):
        monitor.stop()
        stopped.set()

    monitor = monitor_of(machine, handlers=[stop]).start()
    available(machine, 0.1)

    assert stopped.wait(LONG_S)
    assert not monitor.running


def test_coroutine_functions_are_told_from_others_however_they_are_wrapped():
    async def waits(_event):
        pass

    class Waits:
        async def __call__(self, _event):
            pass

        async def method(self, _event):
            pass

    asynchronous = [waits, functools.partial(waits), functools.partial(Waits().method), Waits()]
    others = [print, len, functools.partial(print), lambda _event: waits, [].append, Waits]

    assert all(is_coroutine_function(handler) for handler in asynchronous)
    assert not any(is_coroutine_function(handler) for handler in others)


def test_a_coroutine_handler_needs_a_loop(machine):
    async def handler(_event):
        """Never called."""

    monitor = monitor_of(machine, handlers=[handler])

    with pytest.raises(TypeError, match="async with"):
        monitor.start()
    monitor.stop()


def test_a_stopped_monitor_is_not_started_again(machine):
    monitor = monitor_of(machine).start()
    monitor.stop()
    monitor.stop()

    with pytest.raises(RuntimeError, match="make another"):
        monitor.start()


def test_run_ends_after_its_duration(machine):
    monitor = monitor_of(machine)
    monitor.run(duration=0.01)

    assert not monitor.running


def test_stop_leaves_no_thread_and_no_descriptor_behind(machine):
    before = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
    monitor = monitor_of(machine, handlers=[lambda _event: None]).start()
    monitor.stop()
    after = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    assert after == before


# asyncio.


def test_events_come_to_async_listeners_and_coroutine_handlers(machine):
    handled = []

    async def handler(event):
        handled.append((event.pressure_level, asyncio.get_running_loop()))

    async def main():
        async with monitor_of(machine, handlers=[handler]) as monitor:
            available(machine, 0.1)
            event = await anext(monitor.events())
        return event, asyncio.get_running_loop()

    event, loop = asyncio.run(asyncio.wait_for(main(), LONG_S))

    assert event.pressure_level == "medium"
    assert handled == [("medium", loop)]


def test_what_happened_before_anybody_listened_is_not_lost_to_asyncio(machine):
    available(machine, 0.01)

    async def main():
        async with monitor_of(machine, interval=600) as monitor:
            await asyncio.to_thread(monitor.event_queue.get, timeout=LONG_S)
            return await anext(monitor.events())

    event = asyncio.run(asyncio.wait_for(main(), LONG_S))

    assert (event.pressure_level, event.reason) == ("critical", "level")


def test_a_second_listener_hears_what_comes_from_then_on(machine):
    async def main():
        async with monitor_of(machine) as monitor:
            first, second = monitor.events(), monitor.events()
            available(machine, 0.1)
            return await anext(first), await anext(second)

    first, second = asyncio.run(asyncio.wait_for(main(), LONG_S))

    assert first == second


def test_async_listening_ends_when_the_monitor_stops(machine):
    async def main():
        monitor = monitor_of(machine)
        async with monitor:
            listening = asyncio.ensure_future(_all(monitor))
            await asyncio.sleep(0)
        return await listening

    async def _all(monitor):
        return [event async for event in monitor.events()]

    assert asyncio.run(asyncio.wait_for(main(), LONG_S)) == []


def test_a_hanging_coroutine_handler_is_cancelled_at_the_end(machine):
    began, cancelled = threading.Event(), threading.Event()

    async def hangs(_event):
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def main():
        async with monitor_of(machine, handlers=[hangs]):
            available(machine, 0.1)
            await asyncio.to_thread(began.wait, LONG_S)
        await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(main(), LONG_S))

    assert cancelled.is_set()


# The guard's stream.


class FakeGuard:
    """The real server of the control socket, fed by hand."""

    def __init__(self, path, next_to_go=None):
        status = {"next_to_go": next_to_go}
        self.server = Server(str(path), {"GetStatus": lambda _p, _peer: {"status": status}})
        self.server.open()
        self._events = queue.Queue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def publish(self, **event):
        self._events.put(event)

    def _serve(self):
        import select

        while not self._stop.is_set():
            poll = select.poll()
            for fd, mask in self.server.fds(now_ns()):
                poll.register(fd, mask)
            for fd, mask in poll.poll(10):
                self.server.ready(fd, mask, now_ns())
            while not self._events.empty():
                self.server.publish(self._events.get())
            self.server.pump(now_ns())

    def close(self):
        self._stop.set()
        self._thread.join()
        self.server.close()


@pytest.fixture
def guard(tmp_path):
    guard = FakeGuard(
        tmp_path / "control.sock",
        {"pid": 12, "name": "medium", "processes": 2, "frees_bytes": 5, "why": "it grew"},
    )
    yield guard
    guard.close()


def wait_until(condition):
    for _ in range(1000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never came true")


def test_a_warning_of_the_guard_is_an_event_at_once(machine, guard, tmp_path):
    seen = queue.Queue()
    monitor = monitor_of(
        machine,
        interval=600,
        use_guard=True,
        handlers=[seen.put],
        socket=str(tmp_path / "control.sock"),
    )
    with monitor:
        wait_until(lambda: monitor.guarded)
        guard.publish(
            what="warning",
            sentence="memory runs low",
            level="low",
            pid=11,
            name="large",
            time_left_ns=7 * SECOND,
        )
        event = seen.get(timeout=LONG_S)

    assert (event.reason, event.source, event.sentence) == ("warning", "guard", "memory runs low")
    assert event.likely_victim.name == "large"
    assert event.time_left_s == 7.0


@pytest.mark.parametrize("what", ["ended", "kernel-kill", "other-kill"])
def test_a_kill_the_guard_tells_of_is_an_event_and_its_victim_is_not_the_next(
    machine, guard, tmp_path, what
):
    seen = queue.Queue()
    monitor = monitor_of(
        machine,
        interval=600,
        use_guard=True,
        handlers=[seen.put],
        socket=str(tmp_path / "control.sock"),
    )
    with monitor:
        wait_until(lambda: monitor.guarded)
        guard.publish(what=what, sentence="gone (999)", level="normal", pid=999, name="gone")
        event = seen.get(timeout=LONG_S)

    assert (event.reason, event.what, event.sentence) == ("kill", what, "gone (999)")
    assert event.likely_victim is None or event.likely_victim.pid != 999


def test_names_from_the_socket_are_harmless_to_print(machine, guard, tmp_path):
    seen = queue.Queue()
    hostile = "\x1b[31m\r\nevil \u202e"
    monitor = monitor_of(
        machine,
        interval=600,
        use_guard=True,
        handlers=[seen.put],
        socket=str(tmp_path / "control.sock"),
    )
    with monitor:
        wait_until(lambda: monitor.guarded)
        guard.publish(what="warning", sentence=hostile, level="low", pid=11, name=hostile)
        event = seen.get(timeout=LONG_S)
    victim = event.likely_victim

    assert "evil" in event.sentence
    assert (event.sentence + victim.name + victim.why).isprintable()


def test_of_news_that_comes_together_the_kill_says_most():
    level, warning = {"what": "level"}, {"what": "warning", "pid": 1}
    kill, decision = {"what": "other-kill"}, {"what": "decision", "pid": 2}

    assert max([kill, warning, {}, decision, level], key=rank) == kill
    assert rank({}) <= rank(level) < rank(warning)


def test_with_a_guard_the_victim_is_the_guards(machine, guard, tmp_path):
    seen = queue.Queue()
    monitor = monitor_of(
        machine,
        interval=600,
        use_guard=True,
        handlers=[seen.put],
        socket=str(tmp_path / "control.sock"),
    )
    with monitor:
        wait_until(lambda: monitor.guarded)
        available(machine, 0.1)
        guard.publish(what="level", sentence="memory is medium", level="medium", pid=None)
        event = seen.get(timeout=LONG_S)

    assert event.likely_victim.pid == 12
    assert event.likely_victim.why == "it grew"


def test_without_a_guard_nothing_is_missing(machine, tmp_path):
    seen = queue.Queue()
    monitor = monitor_of(
        machine, use_guard=True, handlers=[seen.put], socket=str(tmp_path / "nobody.sock")
    )
    with monitor:
        available(machine, 0.1)
        event = seen.get(timeout=LONG_S)

    assert event.source == "own"
    assert not monitor.guarded


def test_a_guard_that_says_nothing_holds_nobody_up(machine, tmp_path):
    path = tmp_path / "mute.sock"
    mute = socket.socket(socket.AF_UNIX)
    mute.bind(str(path))
    mute.listen()
    seen = queue.Queue()
    monitor = monitor_of(machine, use_guard=True, handlers=[seen.put], socket=str(path))
    with monitor:
        available(machine, 0.1)
        event = seen.get(timeout=LONG_S)
    mute.close()

    assert event.pressure_level == "medium"


def test_a_stream_stops_while_it_listens(guard, tmp_path):
    stream = GuardStream(str(tmp_path / "control.sock"), lambda _event: None)
    stream.start()
    wait_until(lambda: stream.connected)
    stream.stop()

    wait_until(lambda: not stream.connected)
    with pytest.raises(Unreachable):
        GuardStream(str(tmp_path / "nobody"), lambda _event: None)._connect()


# The package.


def test_importing_the_package_imports_nothing_else():
    code = (
        "import sys; before = set(sys.modules); import forestall; "
        "print(sorted(set(sys.modules) - before))"
    )
    source = str(Path(forestall.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {source!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.strip() == "['forestall']"


def test_the_monitor_imports_nothing_dear_before_it_is_needed():
    dear = {"asyncio", "ctypes", "dataclasses", "inspect", "json", "logging", "pathlib", "socket"}
    source = str(Path(forestall.__file__).parents[1])
    code = (
        f"import sys; sys.path.insert(0, {source!r}); from forestall import PressureMonitor; "
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )

    assert dear & set(done.stdout.split()) == set()


def test_every_promised_name_is_there():
    for name in forestall.__all__:
        assert getattr(forestall, name) is not None
    with pytest.raises(AttributeError):
        forestall.nothing  # noqa: B018 - asking is the test


def test_a_process_is_a_value():
    assert Process(1, "a", 2.0) == Process(1, "a", 2.0)
    assert Level.CRITICAL.value == event_of().level


def test_a_stop_while_the_thread_has_not_started_yet_is_no_error():
    """Ctrl-C between making a thread and its start: forestall watch ended with 70 and not 130."""
    monitor = PressureMonitor()
    monitor._thread = threading.Thread(target=print)
    monitor.stop()

    assert not monitor.running
