"""What looks like a mistake, on values: no machine is asked."""

import pytest

from forestall.config.lint import Process, Surroundings, lint, matches
from forestall.config.read import load, load_text
from forestall.config.victims import parse_entry
from forestall.core.model import Memory
from forestall.core.rules import DEFAULT_TRIGGERS
from forestall.core.units import GIB

HERE = (
    Process(pid=1, name="systemd", uid=0, cgroup="/init.scope"),
    Process(pid=2, name="mysqld", uid=7, exe="/usr/sbin/mysqld", cgroup="/a.slice/db.service"),
    Process(pid=3, name="hog", uid=1000, exe="/usr/bin/hog", cmdline="hog --big"),
)


def memory(total=8 * GIB, swap=0):
    return Memory(total, total // 2, swap, swap, swap)


def keys(text, **around):
    findings = lint(load_text(text), Surroundings(**around))
    return [(finding.key, finding.what) for finding in findings]


def says(text, piece, **around):
    return [key for key, what in keys(text, **around) if piece in what]


@pytest.mark.parametrize("total", [GIB // 2, 8 * GIB, 2048 * GIB])
@pytest.mark.parametrize("swap", [0, 4 * GIB])
@pytest.mark.parametrize("psi", [True, False])
def test_the_defaults_have_no_findings_anywhere(tmp_path, total, swap, psi):
    around = Surroundings(processes=HERE, memory=memory(total, swap), psi=psi)

    assert lint(load(root=tmp_path), around) == []


def test_a_pattern_that_matches_nothing_here_is_found():
    text = '[victims]\nnever = ["^mysqld$", "^mysql$"]\n'

    assert says(text, "'^mysql$' matches nothing", processes=HERE) == ["victims.never"]
    assert says(text, "'^mysqld$'", processes=HERE) == []


def test_without_processes_no_pattern_is_judged():
    assert keys('[victims]\nnever = ["^none$"]\n') == []


def test_a_rule_behind_another_that_takes_all_it_matches_is_found():
    text = '[victims]\nnever = ["hog"]\nprefer = [{ uid = 1000 }]\n'

    assert says(text, "has no effect", processes=HERE) == ["victims.prefer"]


def test_a_name_longer_than_the_kernel_keeps_is_found():
    text = '[victims]\navoid_more = ["^NetworkManager-dispatcher$"]\n'

    assert says(text, "more than 15 bytes", processes=HERE) == ["victims.avoid"]


def test_a_pattern_that_matches_nearly_everything_is_found():
    many = tuple(Process(pid=100 + n, name=f"p{n}", uid=0) for n in range(20))

    assert says('[victims]\navoid = ["p"]\n', "20 of 20", processes=many) == ["victims.avoid"]


def test_preferring_process_1_is_found():
    found = says('[victims]\nprefer = ["systemd"]\n', "process 1", processes=HERE)

    assert found == ["victims.prefer"]


def test_the_old_never_is_found_in_settings_and_in_processes():
    old = (Process(pid=9, name="sshd", uid=0, oom_score_adj=-17),)

    found = keys("[guard]\noom_score_adj = -17\n", processes=old)

    assert [key for key, what in found if "1.7%" in what] == ["guard.oom_score_adj", ""]


def test_without_swap_a_limit_on_swap_keeps_no_kill_from_coming_first():
    """There a limit on free swap always holds, and the one on memory decides alone."""
    text = '[triggers.nearly-exhausted]\nwhen = ["available < 1%"]\n'

    assert says(text, "kills at once", memory=memory(swap=0)) == ["triggers.nearly-exhausted"]
    assert says(text, "kills at once", memory=memory(swap=GIB)) == []


def test_a_kill_that_always_comes_before_the_polite_stage_is_found():
    text = """
[triggers.exhausted]
when = ["available < 20%", "swap_free < 20%"]
"""

    found = says(text, "kills at once", memory=memory(swap=GIB))

    assert found == ["triggers.nearly-exhausted"]


def test_conditions_that_exclude_each_other_are_found():
    text = """
[triggers.mine]
stage = "kill"
when = ["available < 5%", "available > 10%"]
"""

    assert says(text, "exclude each other", memory=memory()) == ["triggers.mine"]


def test_a_limit_of_nothing_is_found():
    text = '[triggers.mine]\nstage = "kill"\nwhen = ["available < 0B"]\n'

    assert says(text, "never holds", memory=memory()) == ["triggers.mine"]


def test_settings_that_end_nobody_are_found():
    names = [trigger.name for trigger in DEFAULT_TRIGGERS if trigger.stage.rank >= 2]
    text = "".join(f"[triggers.{name}]\nenabled = false\n" for name in names)

    assert says(text, "no trigger ends anything") == ["triggers"]


def test_a_trigger_on_stalls_without_psi_is_found():
    text = '[triggers.mine]\nstage = "kill"\nwhen = ["stall_full[2s] > 20%"]\n'

    assert says(text, "does not measure stalls", psi=False) == ["triggers.mine"]
    assert says(text, "does not measure stalls", psi=None) == []


def test_a_trigger_on_waiting_for_a_disk_without_psi_is_found():
    text = '[triggers.mine]\nstage = "kill"\nwhen = ["available < 9%", "stall_io[2s] > 20%"]\n'

    assert says(text, "does not measure stalls", psi=False) == ["triggers.mine"]


def test_a_forecast_alone_that_ends_processes_is_found():
    text = '[triggers.mine]\nstage = "kill"\nwhen = ["time_left < 10s"]\n'

    assert says(text, "a forecast alone") == ["triggers.mine"]


def test_a_long_grace_is_found():
    assert says('[timing]\ngrace = "2min"\n', "longer than memory") == ["timing.grace"]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"unit": "^db.service$"}, [None, True, None]),
        ({"cgroup": "^/a.slice/"}, [False, True, None]),
        ({"exe": "hog"}, [None, False, True]),
        ({"uid": 1000}, [False, False, True]),
    ],
)
def test_what_cannot_be_read_is_not_known_to_match(entry, expected):
    from forestall.config.victims import LISTS

    rule = parse_entry(entry, LISTS[0], "test")
    found = [matches(rule, process) for process in HERE]
    unknown_is_false = [bool(one) for one in found]

    assert unknown_is_false == [bool(one) for one in expected]
    assert found[2] == expected[2]


def test_an_adjustment_of_the_old_scale_in_an_entry_is_said():
    text = '[victims]\navoid_more = [{ unit = "^db[.]service$", oom_score_adj = -10 }]\n'

    findings = [f for f in lint(load_text(text), Surroundings()) if "oom_adj" in f.what]

    assert [finding.key for finding in findings] == ["victims.avoid"]
    assert "-588" in findings[0].what
