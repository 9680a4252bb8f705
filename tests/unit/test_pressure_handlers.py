"""The seed's four handlers."""

from forestall.inspect.suggest import Advice, Suggestion
from forestall.library.event import PressureEvent, Process, Victim
from forestall.library.handlers import (
    AlertOnCritical,
    CleanUp,
    LogPressure,
    Suggest,
    describe,
)


def event_of(level, **changes):
    fields = {
        "timestamp": 1_700_000_000.0,
        "pressure_level": level,
        "memory_percent": 96.4,
        "swap_percent": 60.0,
        "available_bytes": 512 << 20,
        "total_bytes": 16 << 30,
        "top_processes": (Process(42, "hog", 51.2),),
    }
    return PressureEvent(**(fields | changes))


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


def test_log_writes_level_memory_swap_and_the_largest():
    said = []
    LogPressure(said.append)(event_of("medium"))

    assert "MEDIUM: 96.4% of memory used, 512 MiB available, swap 60.0%" in said[0]
    assert "42 hog" in said[1]
    assert "51.2%" in said[1]


def test_log_says_time_left_victim_limit_and_the_guards_words():
    victim = Victim(pid=42, name="hog", processes=1, frees_bytes=1, why="hog (42) grew")
    lines = describe(
        event_of(
            "critical", time_left_s=4.2, likely_victim=victim, limit="/a.service", sentence="soon"
        )
    )

    assert "the limit of /a.service" in lines[0]
    assert any("4.2 s left" in line for line in lines)
    assert any("next to go: hog (42) grew" in line for line in lines)
    assert any("the guard says: soon" in line for line in lines)


def test_alert_speaks_on_critical_only_and_once_a_minute():
    sent, clock = [], Clock()
    alert = AlertOnCritical(sent.append, now_s=clock)
    alert(event_of("medium"))
    for clock.now_s in (0.0, 5.0, 59.0, 61.0):
        alert(event_of("critical"))

    assert len(sent) == 2
    assert "memory is critical: 96.4% used" in sent[0]


def test_clean_up_takes_the_cache_at_medium_and_swap_above_half():
    done, said, clock = [], [], Clock()

    def perform(action):
        done.append(action)
        return f"did {action}"

    clean = CleanUp(said.append, perform=perform, now_s=clock)
    clean(event_of("low"))
    clean(event_of("medium", swap_percent=50.0))
    clock.now_s = 100.0
    clean(event_of("critical", swap_percent=50.1))

    assert done == ["page-cache", "page-cache", "swap"]
    assert said[-1] == "did swap"


def test_clean_up_does_not_repeat_within_a_minute():
    done, clock = [], Clock()
    clean = CleanUp(lambda _line: None, perform=lambda a: done.append(a) or "", now_s=clock)
    for clock.now_s in (0.0, 10.0, 59.0):
        clean(event_of("critical", swap_percent=0.0))

    assert done == ["page-cache"]


def test_suggest_speaks_on_critical_with_the_command():
    said = []
    one = Suggestion(pid=42, name="hog", gain_bytes=1 << 30, reason="holds it", command="kill 42")
    suggest = Suggest(said.append, advise=lambda _e: Advice(suggestions=(one,), protected=()))
    suggest(event_of("medium"))
    nothing = list(said)
    suggest(event_of("critical"))

    assert nothing == []
    assert "consider ending hog (42): holds it" in said[0]
    assert "gives back 1.00 GiB:  kill 42" in said[1]
