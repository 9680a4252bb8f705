"""Control groups with a limit of their own: read, told of, and ended in only by setting."""

import os

import pytest

from forestall.core.events import End, Missed, Survey, Tell, Watched
from forestall.core.groups import WATCH_CALM_NS, WATCH_NEAR_NS, next_look_ns
from forestall.core.model import Group, Standing
from forestall.core.pace import pause_ns
from forestall.core.policy import step
from forestall.core.rules import DEFAULT_RULES
from forestall.core.state import begin, under
from forestall.core.units import GIB, MIB, MS, SECOND
from forestall.core.value import replace
from forestall.kernel.groups import GROUPS_MAX, LOOK_AGAIN_NS, Groups
from tests.fakes.builders import row, sampled, surveyed

LEAF = "/system.slice/app.service"
ACTING = replace(DEFAULT_RULES, kill_within_cgroup=True)
LEAK = row(70, 150 * MIB, comm="leak", cgroup=LEAF, age_s=5)
KEEPER = row(71, 20 * MIB, comm="keeper", cgroup=LEAF)
STRANGER = row(72, 4 * GIB, comm="stranger", cgroup="/system.slice/other.service", age_s=5)


def group(usage_mib, *, path=LEAF, limit_mib=200, kills=0, soft=False, cache_mib=0):
    return Group(path, limit_mib * MIB, int(usage_mib * MIB), cache_mib * MIB, 0, soft, kills, None)


class Play:
    """A machine with plenty of memory, and a group in it that has little."""

    def __init__(self, rules=DEFAULT_RULES):
        self.rules = rules
        self.state = begin(rules)
        self.now_ns = 1000 * SECOND
        self.asked = []
        self.feed(sampled(self.now_ns, 0.6))
        self.feed(surveyed(self.now_ns, LEAK, KEEPER, STRANGER))

    def feed(self, event):
        self.state, requests = step(self.state, event, self.rules)
        self.asked = list(requests)
        return self

    def watch(self, *groups, after_ns=SECOND):
        self.now_ns += after_ns
        return self.feed(Watched(self.now_ns, groups))

    def answer(self, *rows):
        return self.feed(surveyed(self.now_ns, *rows))

    def find(self, kind):
        return [request for request in self.asked if isinstance(request, kind)]


def climbing(play, *usages_mib):
    for usage in usages_mib:
        play.watch(group(usage))
        if play.find(Survey):
            return play
    raise AssertionError("nothing was asked for")


def test_a_group_that_runs_into_its_limit_is_told_of_with_who_and_how_long():
    play = climbing(Play(), 150, 170, 190).answer(LEAK, KEEPER, STRANGER)
    (told,) = play.find(Tell)

    assert told.what == "group-warning"
    assert "app.service" in told.sentence
    assert "limit of 200 MiB" in told.sentence
    assert told.comm == "leak"
    assert told.time_left_ns is not None
    assert told.time_left_ns < 2 * SECOND
    assert "stranger" not in told.sentence


def test_nobody_is_ended_in_it_unless_a_person_has_said_so():
    play = Play()
    for n in range(200):
        play.watch(group(min(199.9, 150 + n)), after_ns=100 * MS)
        assert not play.find(End)
        if play.find(Survey):
            play.answer(LEAK, KEEPER, STRANGER)
            assert not play.find(End)


def test_by_setting_the_one_to_blame_in_it_is_ended_and_nobody_outside():
    """The stranger is larger and grows faster, in a group of its own that has room."""
    play = Play(ACTING)
    for usage in (150, 170, 185, 196):
        play.watch(group(usage), after_ns=200 * MS)
        if play.find(Survey):
            play.answer(LEAK, KEEPER, STRANGER)
    (end,) = play.find(End)

    assert end.victims == (LEAK.id,)
    assert "own limit" in end.why
    # One victim, then its memory is awaited.
    play.watch(group(198), after_ns=100 * MS)
    assert not play.asked


def test_by_setting_too_what_a_rule_protects_is_spared_and_it_is_said():
    never = row(70, 150 * MIB, comm="leak", cgroup=LEAF, standing=Standing.NEVER, rule="mine")
    play = Play(ACTING)
    for usage in (150, 170, 185, 196):
        play.watch(group(usage), after_ns=200 * MS)
        if play.find(Survey):
            play.answer(never, STRANGER)
    told = play.find(Tell)

    assert not play.find(End)
    assert [tell.what for tell in told] == ["nobody"]


def test_a_limit_that_only_holds_back_ends_nobody():
    play = Play(ACTING)
    for usage in (150, 170, 185, 196, 199):
        play.watch(group(usage, soft=True), after_ns=200 * MS)
        if play.find(Survey):
            play.answer(LEAK, KEEPER)
            assert "holds it back" in play.find(Tell)[0].sentence
        assert not play.find(End)


def test_cache_that_gives_way_is_no_shortage():
    play = Play()
    for usage in (120, 160, 199, 200, 200):
        play.watch(group(usage, cache_mib=90))

        assert play.asked == []


def test_a_warning_comes_once_a_minute():
    play = climbing(Play(), 150, 170, 190).answer(LEAK)
    warned = 0
    for n in range(100):
        play.watch(group(195 + (n % 2)))
        if play.find(Survey):
            warned += 1
            play.answer(LEAK)

    assert warned == 1


def test_a_kill_by_the_kernel_in_it_is_told_of_once_and_not_for_those_above():
    play = Play()
    play.watch(group(100), group(100, path="/system.slice", limit_mib=900))
    play.watch(group(90, kills=2), group(90, path="/system.slice", limit_mib=900, kills=2))
    (told,) = play.find(Tell)

    assert told.what == "group-kill"
    assert "2 process(es) in app.service" in told.sentence
    play.watch(group(90, kills=2), group(90, path="/system.slice", limit_mib=900, kills=2))
    assert play.asked == []


def test_a_survey_that_fails_leaves_nothing_half_done():
    play = climbing(Play(), 150, 170, 190)
    play.feed(Missed(play.now_ns, "survey", "cannot"))

    assert play.state.within is None
    assert climbing(play, 192).find(Survey)


def test_a_group_that_goes_away_is_forgotten():
    play = climbing(Play(), 150, 170, 190)
    play.watch()

    assert play.state.groups == ()
    assert play.answer(LEAK).find(End) == []


def test_new_rules_leave_nothing_half_done():
    play = climbing(Play(), 150, 170, 190)

    assert under(play.state, ACTING).within is None


def test_one_looks_oftener_when_a_group_is_near_its_limit():
    play = Play(ACTING)
    calm = next_look_ns(play.watch(group(50)).state)
    play.watch(group(190))

    assert calm == WATCH_CALM_NS
    assert next_look_ns(play.state) == WATCH_NEAR_NS
    # To end somebody before the kernel does, one has to be awake.
    assert pause_ns(play.state, ACTING) <= WATCH_NEAR_NS


# The reader.


@pytest.fixture
def hierarchy(tmp_path):
    def make(path, *, limit="max", high="max", usage=0, **files):
        folder = tmp_path / path.lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        texts = {
            "memory.max": f"{limit}\n",
            "memory.high": f"{high}\n",
            "memory.current": f"{usage}\n",
            "memory.stat": "anon 1000\ninactive_file 4096\nactive_file 8192\n",
            "memory.events": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 3\n",
            "memory.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=9\n"
            "full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n",
            "memory.swap.max": "max\n",
            "memory.swap.current": "0\n",
        } | files
        for name, text in texts.items():
            (folder / name).write_text(text)
        return folder

    make.root = str(tmp_path)
    return make


def reader(hierarchy):
    return Groups(hierarchy.root, pread=os.pread)


def test_limits_are_found_on_the_group_and_above_it(hierarchy):
    hierarchy("/a.slice", limit=MIB)
    hierarchy("/a.slice/b.service", usage=10)
    hierarchy("/c.service")
    groups = reader(hierarchy)
    groups.learn(["/a.slice/b.service", "/c.service"], 0)
    (found,) = groups.read()
    groups.close()

    assert found.path == "/a.slice"
    assert found.limit_bytes == MIB
    assert (found.oom_kills, found.stall_full_us, found.soft) == (3, 7, False)


def test_the_smaller_of_two_limits_counts_and_its_kind_is_known(hierarchy):
    hierarchy("/a", limit=2 * MIB, high=MIB, usage=MIB - 5)
    groups = reader(hierarchy)
    groups.learn(["/a"], 0)
    (found,) = groups.read()
    groups.close()

    assert found.soft
    assert found.limit_bytes == MIB
    assert found.reclaimable_bytes == 4096 + 8192


def test_a_swap_limit_of_its_own_is_room(hierarchy):
    hierarchy("/a", limit=MIB, **{"memory.swap.max": "5000\n", "memory.swap.current": "2000\n"})
    groups = reader(hierarchy)
    groups.learn(["/a"], 0)

    assert groups.read()[0].swap_room_bytes == 3000
    groups.close()


def test_a_limit_that_is_set_later_is_found_after_a_minute(hierarchy):
    hierarchy("/a")
    groups = reader(hierarchy)
    groups.learn(["/a"], 0)
    hierarchy("/a", limit=MIB)
    groups.learn(["/a"], LOOK_AGAIN_NS - 1)
    early = groups.read()
    groups.learn(["/a"], LOOK_AGAIN_NS)

    assert early == ()
    assert len(groups.read()) == 1
    groups.close()


@pytest.mark.parametrize("broken", ["", "many\n", "12 13\n", "\xff"])
@pytest.mark.parametrize("name", ["memory.current", "memory.max", "memory.events"])
def test_what_cannot_be_read_is_counted_and_the_others_are_read(hierarchy, name, broken):
    hierarchy("/a", limit=MIB)
    hierarchy("/b", limit=MIB)
    groups = reader(hierarchy)
    groups.learn(["/a", "/b"], 0)
    (hierarchy("/a", limit=MIB) / name).write_bytes(broken.encode("latin-1"))
    found = groups.read()
    groups.close()

    assert [one.path for one in found] == ["/b"]
    assert groups.errors == 1


def test_a_group_that_is_removed_is_dropped(hierarchy):
    hierarchy("/a", limit=MIB)
    gone = []

    def pread(fd, size, offset):
        if gone:
            raise OSError(19, "No such device")
        return os.pread(fd, size, offset)

    groups = Groups(hierarchy.root, pread=pread)
    groups.learn(["/a"], 0)
    gone.append("/a")

    assert groups.read() == ()
    assert len(groups) == 0


def test_there_is_a_bound_and_what_is_beyond_it_is_counted(hierarchy):
    for n in range(GROUPS_MAX + 3):
        hierarchy(f"/g{n}", limit=MIB)
    groups = reader(hierarchy)
    for n in range(GROUPS_MAX + 3):
        groups.learn([f"/g{n}"], 0)

    assert len(groups) == GROUPS_MAX
    assert groups.dropped == 3
    groups.close()


def test_a_path_that_leads_out_of_the_hierarchy_is_not_followed(hierarchy):
    """A process outside of our cgroup namespace shows as /../something."""
    hierarchy("/a", limit=MIB)
    groups = Groups(f"{hierarchy.root}/b", pread=os.pread)
    groups.learn(["/../a"], 0)

    assert groups.read() == ()


def test_without_a_hierarchy_there_is_nothing():
    groups = Groups("", pread=os.pread)
    groups.learn(["/a"], 0)

    assert groups.read() == ()
