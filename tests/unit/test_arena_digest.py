"""Event lines in, figures out."""

import json

import pytest

from arena.digest import digest, from_json, parse_events, quantile, to_json
from arena.guards import GUARDS

EARLYOOM = GUARDS["earlyoom"]


def beats(latencies_ms, start_ms=0):
    pairs = [[start_ms + 100 * i, round(ms * 1000)] for i, ms in enumerate(latencies_ms)]
    return {"ev": "beats", "list": pairs}


def guard(when, t, pids=(40,), cpu_us=1000):
    return {
        "ev": "guard",
        "when": when,
        "t": t,
        "pids": list(pids),
        "pss_kib": 500,
        "rss_kib": 900,
        "private_dirty_kib": 100,
        "swap_kib": 0,
        "cpu_us": cpu_us,
        "run_delay_us": 0,
        "major_faults": 0,
    }


def role(name, **counts):
    zero = {"started": 1, "live": 0, "killed": 0, "failed": 0, "finished": 0}
    return {"ev": "role", "role": name, **zero, **counts}


def sample(t, available_mib, io_full_s=0.0):
    return {
        "ev": "sample",
        "t": t,
        "available_kib": available_mib * 1024,
        "full_avg10": 1.5,
        "full_us": int(t * 1000),
        "io_full_us": int(io_full_s * 1_000_000),
    }


def signal(t, pid=77, number=15, by="earlyoom", by_pid=40):
    return {"ev": "signal", "t": t, "signal": number, "pid": pid, "by": by, "by_pid": by_pid}


def exited(t, pid=77, number=15, status=0, name="culprit"):
    return {
        "ev": "exit",
        "t": t,
        "pid": pid,
        "role": name,
        "comm": "node",
        "signal": number,
        "status": status,
    }


def oom(t, pid=77, *, memcg=False):
    return {"ev": "oom", "t": t, "pid": pid, "memcg": memcg, "text": "Killed process 77"}


def events(*between, latencies=(4.0,) * 150, end_t=15.0, kills=0):
    return [
        {"ev": "ready", "t": 2.0, "total_kib": 990000, "available_kib": 512000, "swap_kib": 0},
        guard("before", 2.0),
        {"ev": "trouble", "t": 5.0},
        *between,
        {
            "ev": "end",
            "t": end_t,
            "trouble_at": 5.0,
            "gone_at": 10.0,
            "lowest_kib": 51200,
            "available_kib": 512000,
            "kernel_kills": kills,
            "open_beat_s": 0.0,
            "monitor_gap_s": 0.004,
        },
        guard("after", end_t, cpu_us=51000),
        role("culprit", killed=1),
        role("service", live=1),
        beats(latencies),
        {"ev": "spawns", "list": [[6000, 9000]]},
        {"ev": "done"},
    ]


def test_a_quiet_run_gives_every_figure():
    seen = digest(
        events(
            *(sample(6.0, 400), sample(9.8, 90), signal(9.9), exited(9.95)),
            {"ev": "gone", "t": 10.0},
            sample(11.0, 500),
        ),
        EARLYOOM,
    )

    assert seen.complete
    assert seen.gone_s == 5.0
    assert seen.ready_mib == 500.0
    assert seen.lowest_mib == 50.0
    assert seen.first_signal_s == pytest.approx(4.9)
    assert seen.first_signal_mib == 90.0
    assert seen.beats.base_p50 == 4.0
    assert seen.beats.stall == 0.0
    assert seen.beats.on_time_share == 1.0
    assert seen.recovered_s == 5.0
    assert seen.cost.cpu_ms == 50.0
    assert not seen.cost.restarted
    assert [(d.role, d.by, d.at_s) for d in seen.deaths] == [("culprit", "guard", 4.95)]
    assert seen.series == ((1.0, 400.0), (4.8, 90.0), (6.0, 500.0))


@pytest.mark.parametrize(
    ("between", "by"),
    [
        ((signal(9.9), exited(9.95)), "guard"),
        ((signal(9.9, by="relief", by_pid=40), exited(9.95)), "guard"),
        ((signal(9.9, number=9, by="cc1", by_pid=9), oom(9.91), exited(9.95, number=9)), "kernel"),
        ((oom(9.91, memcg=True), exited(9.95, number=9)), "memcg"),
        ((signal(9.9, number=9, by="systemd", by_pid=1), exited(9.95, number=9)), "systemd"),
        ((signal(9.9, number=15), exited(9.95, number=9)), "unknown"),
        ((exited(9.95, number=11),), "unknown"),
        # It caught the TERM and ended in good order: that is a death by signal too.
        ((signal(9.0), exited(9.95, number=0)), "guard"),
        ((signal(9.0), exited(9.95, number=0, status=1)), "guard"),
    ],
)
def test_a_death_is_laid_at_the_door_of_who_sent_the_signal(between, by):
    seen = digest(events(*between), EARLYOOM)

    assert [death.by for death in seen.deaths] == [by]


def test_ends_without_a_signal_and_deaths_outside_of_the_trouble_are_no_deaths():
    seen = digest(events(exited(4.0), exited(9.0, number=0), exited(15.5, number=9)), EARLYOOM)

    assert seen.deaths == ()


def test_the_longest_stall_counts_beyond_the_beat_and_moves_the_recovery():
    latencies = [4.0] * 80 + [1404.0] + [4.0] * 56
    pairs = [
        [100 * i if i <= 80 else 100 * (i + 13), int(ms * 1000)] for i, ms in enumerate(latencies)
    ]
    lines = events(exited(9.95), {"ev": "gone", "t": 8.0})
    lines[-3] = {"ev": "beats", "list": pairs}

    seen = digest(lines, EARLYOOM)

    # Due at 8.0 s, finished at 9.404 s; the beat before finished at 7.904 s.
    assert seen.beats.stall == 1400.0
    assert seen.recovered_s == pytest.approx(4.4)


@pytest.mark.parametrize(
    ("waits", "began_s"),
    [
        (((6.0, 0.2), (7.0, 0.3), (8.1, 0.4)), None),
        (((6.0, 0.2), (7.0, 0.3), (8.0, 0.6), (9.0, 0.6)), 2.0),
        (((6.0, 0.2), (6.5, 0.5)), None),
    ],
)
def test_a_thrash_begins_with_a_second_of_which_a_fifth_is_waited_for_the_disk(waits, began_s):
    seen = digest(events(*(sample(t, 90, waited) for t, waited in waits)), EARLYOOM)

    assert seen.thrash_s == began_s


def test_a_service_that_falls_silent_never_recovers():
    seen = digest(events(latencies=(4.0,) * 90), EARLYOOM)

    assert seen.recovered_s is None
    assert seen.beats.stall == pytest.approx(15_000 - 8_904 - 100)


def test_a_guard_with_another_pid_at_the_end_was_restarted():
    lines = events()
    lines[-6] = guard("after", 15.0, pids=(99,))

    cost = digest(lines, EARLYOOM).cost

    assert cost.restarted
    assert cost.run_delay_ms is None


def test_a_guard_that_is_gone_at_the_end_counts_as_died_and_costs_nothing_known():
    lines = events()
    lines[-6] = guard("after", 15.0, pids=())

    cost = digest(lines, EARLYOOM).cost

    assert cost.restarted
    assert cost.pss_kib is None


@pytest.mark.parametrize("kept", range(len(events())))
def test_a_run_cut_short_anywhere_is_incomplete_and_never_raises(kept):
    assert not digest(events()[:kept], EARLYOOM).complete


def test_lines_that_are_cut_or_foreign_are_dropped():
    data = b'{"ev":"ready"}\nnot json\n[1]\n{"no":"ev"}\n{"ev":3}\n{"ev":"tru'

    assert parse_events(data) == [{"ev": "ready"}]


def test_a_run_survives_the_way_to_json_and_back():
    seen = digest(events(sample(6.0, 400), signal(9.9), exited(9.95)), EARLYOOM)

    assert from_json(json.loads(json.dumps(to_json(seen)))) == seen


def test_quantiles_of_nothing_are_unknown():
    assert quantile([], 0.5) is None
    assert quantile([3.0], 0.99) == 3.0
