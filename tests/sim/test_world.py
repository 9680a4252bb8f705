"""What must hold in every world, hostile or not: safety, liveness, and faithful replay."""

import json
import os
from collections import Counter

import pytest

from forestall.core.codec import decode, encode
from forestall.core.events import End, Missed, Refused, Surveyed
from forestall.core.model import Force, Role, Standing
from forestall.core.policy import step
from forestall.core.rules import DEFAULT_RULES
from forestall.core.state import Ending
from forestall.core.units import SECOND
from tests.fakes.world import World
from tests.sim.drawing import GOLDEN, PAGE, page, transitions_of, write

SEEDS = range(int(os.environ.get("FORESTALL_SIM_SEEDS", "1000")))
SECONDS = 20
PATIENCE_NS = 5 * SECOND


@pytest.fixture(scope="module")
def tally():
    """What happened in all the worlds of this run: counts, and the policy's transitions."""
    return {"worlds": 0, "happened": Counter(), "transitions": Counter()}


@pytest.mark.parametrize("seed", SEEDS)
def test_safety_and_liveness(seed, tally):
    """Safety: who is touched, when and how. Liveness: shortage does not last."""
    world = World(seed, DEFAULT_RULES)
    never = {b.id for b in world.bodies.values() if b.standing is Standing.NEVER}
    holders = {b.id for b in world.bodies.values() if b.role is Role.SESSION}

    world.run(SECONDS)

    for _, request, _ in world.decisions:
        assert len(request.victims) == 1 or not holders & set(request.victims)
    assert world.stale == [], "ended on memory that had not just been read"
    assert world.loop.errors == 0, "the policy stumbled"
    assert not never & {victim for _, victim, _ in world.signalled}
    for now_ns, request, short in world.decisions:
        assert short, f"{request} at {now_ns} with memory to spare"
    _one_at_a_time(world)
    assert _at_rest(world)
    take_note(tally, world)


def _one_at_a_time(world):
    """Between two different victims lies the end of the first, or all its patience."""
    before_ns, before = 0, None
    rests = [now_ns for now_ns, tell in world.told if tell.what == "outcome"]
    for now_ns, request, _ in world.decisions:
        if before is not None and set(request.victims) - set(before.victims):
            if any(before_ns <= rest_ns <= now_ns for rest_ns in rests):
                # Memory was back in between: this is another shortage. Counted, for it may
                # find the first victim still dying, and should be rare.
                world.hasty += bool(set(before.victims) & world.bodies.keys())
                before_ns, before = now_ns, request
                continue
            waited_ns = now_ns - before_ns
            first = set(before.victims) & world.bodies.keys()
            stuck = [b for b in first if world.bodies[b].immortal]
            patient = waited_ns >= DEFAULT_RULES.kill_patience_ns
            assert len(stuck) == len(first) or patient, "a second victim while the first had time"
        elif before is not None and request.force is before.force is Force.TERM:
            # Who refused may be asked again after a rest: the answer comes at once.
            refusers = all(
                victim in world.refused or world.is_immortal(victim) for victim in request.victims
            )
            assert refusers or now_ns - before_ns >= SECOND, "asked twice"
        before_ns, before = now_ns, request


def _at_rest(world):
    """Scarcity that lasted has been answered: by an end, or by saying why there is none."""
    since_ns = world.scarce_since_ns
    if since_ns is None or world.now_ns - since_ns < PATIENCE_NS:
        return True
    mortal = [
        body
        for body in world.bodies.values()
        if body.standing is not Standing.NEVER and not body.immortal
    ]
    acted = [now for now, *_ in world.decisions if now >= since_ns - PATIENCE_NS]
    told = [now for now, t in world.told if t.what in {"nobody", "futile"}]
    return bool(not mortal or acted or told)


@pytest.mark.parametrize("seed", SEEDS[::25])
def test_a_record_replays_byte_for_byte(seed):
    """From any keyframe on, the recorded events give the recorded requests."""
    world = World(seed, DEFAULT_RULES)
    world.run(15)
    keyframe = len(world.diary) // 3
    state = decode(encode(world.diary[keyframe][0]))

    for recorded, event, requests in world.diary[keyframe:]:
        assert state == recorded
        state, again = step(state, decode(encode(event)), DEFAULT_RULES)
        assert encode(again) == encode(requests)
    assert encode(state) == encode(world.loop.state)


def take_note(tally, world):
    """Count what this world contained, and draw the policy's steps in it."""
    tally["worlds"] += 1
    tally["transitions"].update(transitions_of(world))
    asked = [r for _, _, rs in world.diary for r in rs if isinstance(r, End)]
    told = Counter(tell.what for _, tell in world.told)
    tally["happened"].update(
        {
            "ends": len(asked),
            "families": sum(len(r.victims) > 1 for r in asked),
            "forced": sum(r.force is Force.KILL for r in asked),
            "kernel kills": world.kernel_kills,
            "refusals": told["refused"],
            "refusals of SIGKILL": sum(
                isinstance(event, Refused)
                and isinstance(state.hunt, Ending)
                and state.hunt.force is Force.KILL
                for state, event, _ in world.diary
            ),
            "stuck": told["stuck"],
            "nobody": told["nobody"],
            "futile": told["futile"],
            "thrash": sum(r.trigger == "thrash" for r in asked),
            "churn": sum(r.trigger == "churn" for r in asked),
            "shared memory looked for": sum(
                isinstance(event, Surveyed) and event.shared for _, event, _ in world.diary
            ),
            "missed samples": sum(
                isinstance(event, Missed) and event.what == "sample" for _, event, _ in world.diary
            ),
            "failed surveys": sum(
                isinstance(event, Missed) and event.what == "survey" for _, event, _ in world.diary
            ),
            "clock stalls": world.stalls,
            "calm worlds": not asked,
            "second shortages": world.hasty,
        }
    )


@pytest.mark.skipif(len(SEEDS) < 1000, reason="fewer worlds than the golden file was drawn from")
def test_the_worlds_are_hostile_enough(tally):
    """A simulator that never kills proves nothing: count what the seeds contain."""
    if tally["worlds"] < len(SEEDS):
        pytest.skip("not every world was run")
    rare = {what: count for what, count in tally["happened"].items() if count < 10}

    assert rare == {}
    assert tally["happened"]["second shortages"] <= len(SEEDS) // 10


@pytest.mark.skipif(len(SEEDS) < 1000, reason="fewer worlds than the golden file was drawn from")
def test_the_state_machine_is_the_one_that_was_drawn(tally):
    """Transitions, as the running code makes them; UPDATE_GOLDEN=1 draws them anew.

    The set is compared and not the counts: a change of the world moves those.
    """
    if tally["worlds"] < len(SEEDS):
        pytest.skip("not every world was run")
    if os.environ.get("UPDATE_GOLDEN"):
        write(tally["transitions"])
    golden = {tuple(line[:3]) for line in json.loads(GOLDEN.read_text())}

    assert set(tally["transitions"]) == golden


def test_the_page_shows_what_the_golden_file_holds():
    assert PAGE.read_text() == page(json.loads(GOLDEN.read_text()))
