"""The outside yardstick: real logs beside the truth a person read out of them.

The logs belong to the workplace, not to the project; where they are absent these
tests say so and are skipped.
"""

from __future__ import annotations

import json

import pytest

from forestall.forensics import parse
from forestall.forensics.jsonable import to_json
from forestall.forensics.rules import findings
from forestall.forensics.story import tell
from tests.fakes.oom_logs import LOGS, NAMES, read_log

_RENAMED = {"limit_memcg": "oom_memcg", "task_memcg_killed": "task_memcg"}
_SPELT = {"global-or-memcg": "memcg-or-global"}
_NOT_FIELDS = {"note", "printed", "reaped_other", "mem_total_mib", "swap_total_mib", "page_size_kb"}

pytestmark = pytest.mark.skipif(LOGS is None, reason="the real logs are not beside this project")


def _truth(name: str) -> list[dict]:
    text = (LOGS / f"{name}.md").read_text(encoding="utf-8")
    return json.loads(text.split("```json")[1].split("```")[0])


def _found(name: str) -> list[dict]:
    return [to_json(one) for one in parse([read_log(name)])]


def _differences(wanted: dict, found: dict) -> dict[str, tuple]:
    wrong = {}
    for key, value in wanted.items():
        if key in {"victim", "invoker"}:
            part = (found["victims"] or [{}])[0] if key == "victim" else found.get(key, {})
            wrong |= {f"{key}.{k}": (v, part.get(k)) for k, v in value.items() if v != part.get(k)}
        elif key not in _NOT_FIELDS:
            mine = found.get(_RENAMED.get(key, key))
            if key == "oom_adj":
                mine = found.get("invoker", {}).get("oom_adj")
            if key == "panic":
                mine = bool(mine)
            if mine != (_SPELT.get(value, value) if key == "kind" else value):
                wrong[key] = (value, mine)
    return wrong


@pytest.mark.parametrize("name", NAMES)
def test_a_real_log_gives_what_a_person_read_in_it(name):
    truth, found = _truth(name), _found(name)

    assert len(found) == len(truth)
    for wanted, mine in zip(truth, found, strict=True):
        assert _differences(wanted, mine) == {}
        # The truth knows the machine; where the log does not show its page size it is absent.
        assert mine.get("page_size_kb") in {None, wanted["page_size_kb"]}


@pytest.mark.parametrize("name", NAMES)
def test_what_the_truth_does_not_have_is_not_invented(name):
    truth, found = _truth(name), _found(name)

    for wanted, mine in zip(truth, found, strict=True):
        for key in ("ram_pages", "total_ram_kb", "swap_total_kb", "constraint", "memcg_limit_kb"):
            assert (key in mine) == (key in wanted), key
        assert bool(mine["victims"]) == ("victim" in wanted)


@pytest.mark.parametrize("name", NAMES)
def test_every_real_log_can_be_told(name):
    incidents = parse([read_log(name)])

    for incident in incidents:
        told = tell(incident, incidents)

        assert told[0].heading == "What happened"
        for finding in findings(incident, incidents):
            assert 0.0 < finding.confidence <= 1.0
            assert finding.command


RULES = {
    "13": {"one-node", "swap-full"},
    "15": {"crash-kernel", "slab"},
    "21": {"no-shortage", "bystander"},
    "23": {"lowmem"},
    "25": {"one-node"},
    "31": {"limit-too-small", "many-alike"},
    "37": {"one-process", "swap-full"},
    "39": {"dirty-cache", "limit-too-small"},
    "41": {"kernel-leak"},
    "43": {"many-alike"},
    "45": {"limit-too-small", "many-alike"},
    "47": {"many-alike"},
    "55": {"restart-loop"},
    "57": {"cma"},
    "65": {"restart-loop"},
    "67": {"bystander"},
}


@pytest.mark.parametrize("name", [name for name in NAMES if name[:2] in RULES])
def test_the_cause_a_person_saw_is_found(name):
    incidents = parse([read_log(name)])

    found = {f.rule for incident in incidents for f in findings(incident, incidents)}

    assert RULES[name[:2]] <= found
