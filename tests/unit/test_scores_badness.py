"""The kernel's arithmetic, undone: against its own numbers, on both scales."""

import pytest

from forestall.core.model import ProcessId
from forestall.inspect.badness import (
    Machine,
    Scale,
    badness_pages,
    find_scale,
    points_of,
    points_of_pages,
    printed,
    why_not,
)
from forestall.kernel.scores import Footing, Portrait

KIB = 1024
GIB = 1 << 30
HOST = Machine(16 * GIB, 0, 4096, Scale.THIRDS)


def portrait(pid=42, *, rss=0, swap=0, tables=0, adj=0, score=666, **fields):
    memory = Footing(rss, rss, 0, 0, swap, tables)
    defaults = {
        "comm": "p",
        "state": "S",
        "parent_pid": 1,
        "kernel_thread": False,
        "uid": 1000,
        "threads": 1,
        "oom_score": score,
        "oom_score_adj": adj,
        "memory": memory,
        "cgroup": "",
    }
    return Portrait(id=ProcessId(pid, 7), **(defaults | fields))


def test_an_idle_process_prints_666_and_stands_at_zero():
    assert printed(0, Scale.THIRDS) == 666
    assert points_of(666, Scale.THIRDS) == 0


def test_undoing_the_scale_is_off_by_one_step_at_most():
    for points in range(-998, 2001):
        found = points_of(printed(points, Scale.THIRDS), Scale.THIRDS)

        assert found is not None
        assert 0 <= found - points <= 1


def test_the_marks_of_the_seed_would_hit_every_idle_process_on_the_raw_value():
    raw = printed(0, Scale.THIRDS)

    assert raw > 500
    assert points_of(raw, Scale.THIRDS) < 500


def test_a_printed_zero_says_nothing_since_5_9_and_is_idle_before():
    assert points_of(0, Scale.THIRDS) is None
    assert points_of(0, Scale.POINTS) == 0
    assert points_of(123, Scale.UNKNOWN) is None


def test_badness_is_resident_swapped_and_tables_with_the_adjustment_on_top():
    one = portrait(rss=1 * GIB, swap=2 * GIB, tables=8 * KIB, adj=100)

    expected = (3 * GIB + 8 * KIB) // 4096 + 100 * (16 * GIB // 4096 // 1000)

    assert badness_pages(one, HOST) == expected


def test_points_are_cut_towards_zero_as_c_does():
    assert points_of_pages(-1, HOST) == 0
    assert points_of_pages(-(16 * GIB // 4096), HOST) == -1000


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (portrait(1, score=0), "init"),
        (portrait(adj=-1000, score=0), "never considered"),
        (portrait(kernel_thread=True, memory=None, score=0), "kernel"),
        (portrait(state="Z", memory=None, score=0), "ended"),
        (portrait(score=0), "exiting"),
    ],
)
def test_who_is_passed_by_has_a_reason_and_no_badness(one, words):
    assert words in why_not(one, Scale.THIRDS)
    assert badness_pages(one, HOST) is None


def test_the_first_process_of_a_container_is_taken_like_any_other():
    assert why_not(portrait(1, score=667), Scale.THIRDS) is None


def test_an_idle_process_of_an_old_kernel_prints_zero_and_is_considered():
    assert why_not(portrait(score=0), Scale.POINTS) is None


@pytest.mark.parametrize("scale", [Scale.THIRDS, Scale.POINTS])
def test_the_scale_is_found_by_trying(scale):
    idle = portrait(score=printed(0, scale))
    large = portrait(43, rss=4 * GIB, score=printed(250, scale))
    unasked = Machine(16 * GIB, 0, 4096)

    assert find_scale([idle, large], unasked) is scale


def test_roots_old_discount_and_one_who_grew_meanwhile_do_not_mislead():
    discounted = portrait(rss=8 * GIB, score=470)
    idle = portrait(43, score=0)
    grew = portrait(44, rss=1 * GIB, score=900)

    assert find_scale([discounted, idle, grew], Machine(16 * GIB, 0, 4096)) is Scale.POINTS


def test_numbers_that_fit_nothing_leave_the_scale_unknown():
    assert find_scale([portrait(score=1500)], Machine(16 * GIB, 0, 4096)) is Scale.UNKNOWN
    assert find_scale([], HOST) is Scale.UNKNOWN


def test_an_unknown_size_is_an_unknown_badness():
    memory = Footing(4096, None, None, None, None, 0)

    assert badness_pages(portrait(memory=memory), HOST) is None
