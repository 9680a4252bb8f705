"""What must hold in every world, hostile or not: safety, liveness, and faithful replay."""

import os

import pytest

from forestall.core.codec import decode, encode
from forestall.core.events import End
from forestall.core.model import Force, Standing
from forestall.core.policy import step
from forestall.core.rules import DEFAULT_RULES
from forestall.core.state import Calm
from forestall.core.units import SECOND
from tests.fakes.world import World

SEEDS = range(int(os.environ.get("FORESTALL_SIM_SEEDS", "1000")))
SECONDS = 20
PATIENCE_NS = 5 * SECOND


@pytest.mark.parametrize("seed", SEEDS)
def test_safety_and_liveness(seed):
    """Safety: who is touched, when and how. Liveness: shortage does not last."""
    world = World(seed, DEFAULT_RULES)
    never = {b.id for b in world.bodies.values() if b.standing is Standing.NEVER}

    world.run(SECONDS)

    assert world.loop.errors == 0, "the policy stumbled"
    assert not never & {victim for _, victim, _ in world.signalled}
    for now_ns, request, short in world.decisions:
        assert short, f"{request} at {now_ns} with memory to spare"
    _one_at_a_time(world)
    assert _at_rest(world)


def _one_at_a_time(world):
    """Between two different victims lies the end of the first, or all its patience."""
    before_ns, before = 0, None
    for now_ns, request, _ in world.decisions:
        if before is not None and set(request.victims) - set(before.victims):
            waited_ns = now_ns - before_ns
            first = set(before.victims) & world.bodies.keys()
            stuck = [b for b in first if world.bodies[b].stuck or world.bodies[b].refuses]
            patient = waited_ns >= DEFAULT_RULES.kill_patience_ns
            assert len(stuck) == len(first) or patient, "a second victim while the first had time"
        elif before is not None and request.force is before.force is Force.TERM:
            assert now_ns - before_ns >= SECOND, "asked twice"
        before_ns, before = now_ns, request


def _at_rest(world):
    """Scarcity that lasted has been answered: by an end, or by saying why there is none."""
    since_ns = world.scarce_since_ns
    if since_ns is None or world.now_ns - since_ns < PATIENCE_NS:
        return True
    mortal = [
        body
        for body in world.bodies.values()
        if body.standing is not Standing.NEVER and not (body.stuck or body.refuses)
    ]
    acted = [now for now, *_ in world.decisions if now >= since_ns - PATIENCE_NS]
    told = [now for now, t in world.told if t.what in {"nobody", "futile"}]
    return bool(not mortal or acted or told)


@pytest.mark.parametrize("seed", SEEDS[::25])
def test_a_record_replays_byte_for_byte(seed):
    """From any keyframe on, the recorded events give the recorded requests."""
    world = World(seed, DEFAULT_RULES)
    world.run(15)
    state = world.diary[len(world.diary) // 3][0]

    for recorded, event, requests in world.diary[len(world.diary) // 3 :]:
        assert encode(state) == encode(recorded)
        state, again = step(decode(encode(state)), decode(encode(event)), DEFAULT_RULES)
        assert encode(again) == encode(requests)


def test_the_worlds_are_hostile_enough():
    """A simulator that never kills proves nothing: count what the seeds contain."""
    ends = kernel = refused = stuck = forced = calm = families = 0
    for seed in range(150):
        world = World(seed, DEFAULT_RULES)
        world.run(20)
        asked = [r for _, _, rs in world.diary for r in rs if isinstance(r, End)]
        ends += len(asked)
        families += sum(len(r.victims) > 1 for r in asked)
        forced += sum(r.force is Force.KILL for r in asked)
        kernel += world.kernel_kills
        refused += sum(t.what == "refused" for _, t in world.told)
        stuck += sum(t.what == "stuck" for _, t in world.told)
        calm += isinstance(world.loop.state.hunt, Calm) and not asked

    assert min(ends, families, forced, refused, stuck, calm) > 5, (
        ends, families, forced, refused, stuck, calm, kernel,
    )  # fmt: skip
