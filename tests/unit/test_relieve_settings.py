"""The seed's clean-up is one setting away, and any trigger of stage relieve may name an action."""

import pytest

from forestall.config.errors import ConfigError
from forestall.config.read import load_text
from forestall.config.show import render
from forestall.config.triggers import OPTIONAL_TRIGGERS
from forestall.core.codec import decode, encode
from forestall.core.events import Relieve
from forestall.core.model import Stage
from forestall.core.policy import step
from forestall.core.rules import DEFAULT_RULES
from forestall.core.state import begin
from forestall.core.units import GIB, SECOND
from tests.fakes.builders import sampled

BOTH = """
[triggers.cache-at-medium]
enabled = true
[triggers.swap-above-half]
enabled = true
"""


def trigger(settings, name):
    return next(one for one in settings.rules.triggers if one.name == name)


def actions_after(settings, share, swap_free):
    state, asked = begin(settings.rules), []
    for second in range(8):
        event = sampled(
            (1000 + second) * SECOND, share, swap=4 * GIB, swap_free=int(4 * GIB * swap_free)
        )
        state, requests = step(state, event, settings.rules)
        asked += [request.action for request in requests if isinstance(request, Relieve)]
    return asked


def test_by_default_nothing_is_cleaned_up():
    assert load_text("").rules == DEFAULT_RULES
    assert all(one.stage is not Stage.RELIEVE for one in DEFAULT_RULES.triggers)


def test_one_setting_brings_the_cache_at_medium():
    settings = load_text("[triggers.cache-at-medium]\nenabled = true\n")

    assert trigger(settings, "cache-at-medium") == OPTIONAL_TRIGGERS[0]
    assert actions_after(settings, 0.14, 0.9) == ["page-cache"]
    assert actions_after(settings, 0.16, 0.9) == []


def test_swap_is_recycled_when_more_than_half_is_used_at_medium():
    settings = load_text(BOTH)

    assert actions_after(settings, 0.14, 0.49) == ["page-cache", "swap"]
    assert actions_after(settings, 0.14, 0.51) == ["page-cache"]


def test_a_trigger_of_ones_own_names_its_action():
    text = """
[triggers.tidy]
stage = "relieve"
when = ["available < 20%"]
action = "cgroup system.slice/backup.service"
"""

    assert trigger(load_text(text), "tidy").action == "cgroup system.slice/backup.service"


@pytest.mark.parametrize("action", ['"drop"', '"cgroup "', '"cgroup ../../etc"', "7"])
def test_an_action_that_is_none_is_refused(action):
    text = f'[triggers.t]\nstage = "relieve"\nwhen = ["available < 9%"]\naction = {action}\n'

    with pytest.raises(ConfigError, match="write one of"):
        load_text(text)


def test_an_action_without_the_stage_relieve_is_refused():
    with pytest.raises(ConfigError, match="relieve"):
        load_text('[triggers.low]\naction = "swap"\n')


def test_what_is_shown_reads_back_the_same():
    settings = load_text(BOTH)

    assert load_text(render(settings)).rules == settings.rules


def test_actions_survive_the_way_to_the_guard():
    rules = load_text(BOTH).rules

    assert decode(encode(rules)) == rules
