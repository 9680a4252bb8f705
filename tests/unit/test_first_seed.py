"""The first seed's programs, as they were used, on what stands here for them.

Rows of docs/from-the-seeds.md that no test of a part shows: the whole detector with its
four handlers, and what a person at a terminal sees of it.
"""

import inspect
import queue
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import forestall
from forestall.cli import main
from forestall.cli.watch import command as watch
from forestall.library.handlers import AlertOnCritical, CleanUp, LogPressure, Suggest
from forestall.monitor import INTERVAL_S, PressureMonitor
from tests.fakes.proc import GIB_KIB, FakeProc

PATIENCE_S = 20
MIB_KIB = 1024


@pytest.fixture
def machine(tmp_path):
    proc = FakeProc(tmp_path)
    proc.meminfo(
        total=16 * GIB_KIB,
        available=GIB_KIB // 2,
        swap_total=4 * GIB_KIB,
        swap_free=GIB_KIB,
    )
    proc.write("proc/self/cgroup", "0::/\n")
    proc.write("proc/swaps", "Filename Type Size Used Priority\n")
    proc.process(1, comm="init", parent=0)
    proc.process(11, comm="large", anon_kib=4 * GIB_KIB)
    proc.process(12, comm="just-above", anon_kib=165 * MIB_KIB)
    proc.process(13, comm="just-below", anon_kib=163 * MIB_KIB)
    return proc


def test_the_detector_with_its_four_handlers_in_a_thread_of_the_programs(machine):
    """``add_handler`` four times, ``monitor`` in a thread, ``stop_monitoring`` at the end."""
    said, done = queue.Queue(), queue.Queue()
    detector = PressureMonitor(interval=10, use_guard=False, root=str(machine.root))
    detector.add_handler(LogPressure(said.put))
    detector.add_handler(AlertOnCritical(said.put))
    detector.add_handler(CleanUp(said.put, perform=lambda action: done.put(action) or action))
    detector.add_handler(Suggest(said.put, advise=lambda _event: no_advice()))
    before = detector.running
    thread = threading.Thread(target=detector.run)
    thread.start()
    event = detector.event_queue.get(timeout=PATIENCE_S)
    cleaned = [done.get(timeout=PATIENCE_S), done.get(timeout=PATIENCE_S)]
    during = detector.running
    lines = until(said, ("CRITICAL", "memory is critical", "page-cache", "no process is large"))
    detector.stop()
    thread.join(PATIENCE_S)

    assert (before, during, detector.running) == (False, True, False)
    assert not thread.is_alive()
    assert event.pressure_level == "critical"
    assert event.swap_percent == 75.0
    assert cleaned == ["page-cache", "swap"], "swap is more than half in use"
    assert lines


def no_advice():
    from forestall.inspect.suggest import Advice

    return Advice(suggestions=(), protected=())


def until(said, words):
    """Take lines until each of the words has been said."""
    lines, missing = [], set(words)
    while missing:
        lines.append(said.get(timeout=PATIENCE_S))
        missing -= {word for word in missing if word in lines[-1]}
    return lines


def test_top_processes_read_as_the_seed_read_them_and_one_percent_is_not_above_one(machine):
    with PressureMonitor(use_guard=False, root=str(machine.root)) as detector:
        event = detector.current()
    shown = [f"PID {proc['pid']:5d} {proc['name']:15s}" for proc in event.top_processes[:3]]

    assert shown == ["PID    11 large          ", "PID    12 just-above     "]
    assert event.top_processes[0]["memory_percent"] == 25.0


def test_who_is_gone_between_two_reads_or_closed_to_us_is_left_out(machine):
    """``except (NoSuchProcess, AccessDenied): continue``."""
    (machine.proc / "12" / "statm").unlink()
    machine.write("proc/14/stat", "")
    with PressureMonitor(use_guard=False, root=str(machine.root)) as detector:
        names = [process.name for process in detector.current().top_processes]

    assert names == ["large"]


def test_the_usual_interval_is_the_seeds():
    default = inspect.signature(PressureMonitor).parameters["interval"].default
    option = next(param for param in watch.params if param.name == "interval")

    assert (INTERVAL_S, default, option.default) == (5.0, 5.0, 5.0)


def test_ctrl_c_ends_the_detector_in_the_foreground_with_130():
    source = Path(forestall.__file__).parents[1]
    code = "from forestall.cli.main import main; main(['watch', '--json'])"
    with subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(source)!r}); {code}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        poll = select.poll()
        poll.register(child.stdout, select.POLLIN)
        began = poll.poll(PATIENCE_S * 1000)
        child.send_signal(signal.SIGINT)
        _out, complained = child.communicate(timeout=PATIENCE_S)

    assert began
    assert child.returncode == 130
    assert complained.strip() == b""


@pytest.mark.parametrize("choice", [["--guard", "both"], ["--guard", "5"], ["all"]])
def test_a_choice_that_is_not_in_the_menu_is_a_usage_error(choice, capsys):
    code = main.run(["setup", *choice])

    assert code == 2
    assert "Error" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["watch", "stop"], ["wach"], ["status", "extra"]])
def test_what_the_script_would_answer_with_its_usage_is_a_usage_error(words, capsys):
    assert main.run(words) == 2
    assert "Usage" in capsys.readouterr().err
