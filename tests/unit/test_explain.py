"""Why a process stands where it stands, on a machine of files."""

import json

import pytest

from forestall.cli import main
from forestall.cli.explain import document, lines
from forestall.core.rules import DEFAULT_RULES
from forestall.inspect.explain import explain
from forestall.inspect.scores import Scores
from forestall.kernel.errors import ProcessGone
from tests.fakes.proc import GIB_KIB
from tests.fakes.scored import FakeScores


@pytest.fixture
def machine(tmp_path):
    fake = FakeScores(tmp_path)
    fake.scored(20, comm="hog", anon_kib=6 * GIB_KIB, tables_kib=12, start=200, parent=21)
    fake.scored(21, comm="postgres", anon_kib=4 * GIB_KIB)
    fake.scored(22, comm="shielded", anon_kib=8 * GIB_KIB, adj=-1000)
    fake.scored(23, comm="small", anon_kib=2048)
    return fake


@pytest.fixture
def ask(machine):
    scores = Scores(DEFAULT_RULES, root=str(machine.root), spare=frozenset(), rank=True)

    def asked(pid):
        scene = scores.look(portraits_max=None)
        return explain(scores, scene, pid), scene

    yield asked
    scores.close()


def text_of(found, scene):
    return "\n".join(str(line) for line in lines(found, scene, None))


def changes(found):
    return {change.adj: change for change in found.changes}


def test_the_formula_has_this_processs_numbers_and_meets_what_is_printed(ask):
    found, scene = ask(20)
    formula = found.formula

    assert (formula.rss_pages, formula.table_pages, formula.adj) == (6 * GIB_KIB // 4, 3, 0)
    assert formula.badness_pages == 6 * GIB_KIB // 4 + 3
    assert formula.oom_score == formula.printed == 916
    assert "(1000 + 375) x 2 / 3 = 916; the kernel prints 916" in text_of(found, scene)


def test_an_old_kernel_shows_its_own_formula(tmp_path):
    fake = FakeScores(tmp_path, new_scale=False)
    fake.scored(20, comm="hog", anon_kib=8 * GIB_KIB)
    scores = Scores(DEFAULT_RULES, root=str(tmp_path), spare=frozenset(), rank=True)
    scene = scores.look(portraits_max=None)
    found = explain(scores, scene, 20)
    scores.close()

    assert "the score itself, 500, as before Linux 5.9; the kernel prints 500" in text_of(
        found, scene
    )


def test_each_change_says_what_it_would_do(ask):
    found, scene = ask(20)
    what = changes(found)

    assert (found.rank, found.ranked) == (1, 3)
    assert what[-1000].rank is None
    assert what[-500].rank == 3
    assert "behind small (23), and postgres (21) would be next" in what[-500].words
    assert what[500].words == "it would stand where it stands"
    # 2 GiB of 16 are 125 thousandths: 126 units tip it behind the next, 125 do not.
    assert what[-126].words == "would put it behind postgres (21)"
    assert -125 not in what
    assert "adj  -126    would put it behind postgres (21)" in text_of(found, scene)


def test_what_would_make_it_next_is_told_too(ask):
    found, _scene = ask(21)
    next_ones = [adj for adj, change in changes(found).items() if change.rank == 1]

    assert min(next_ones) == 126
    assert "make it the kernel's next victim" in changes(found)[126].words


def test_the_shielded_one_is_told_why_and_what_zero_would_do(ask):
    found, scene = ask(22)

    assert found.rank is None
    assert changes(found)[0].rank == 1
    assert "passes it by: oom_score_adj -1000" in text_of(found, scene)


def test_the_guards_order_and_who_would_go_instead(ask):
    hog, scene = ask(20)
    postgres, _ = ask(21)

    assert hog.guard_place == 1
    # The small one frees too little to be worth it; of the avoided the larger is named.
    assert hog.without_it == "shielded (22)"
    assert postgres.guard_words.startswith("ended only if nobody else will do (built-in avoid")
    assert postgres.guard_place > hog.guard_place
    assert "place 1 in its order" in text_of(hog, scene)


def test_the_line_above_is_shown(ask):
    found, scene = ask(20)

    assert "started by   postgres (21) < init (1)" in text_of(found, scene)


def test_a_process_that_is_gone_is_no_explanation(machine, ask):
    with pytest.raises(ProcessGone):
        ask(4711)


def test_json_is_whole(ask):
    found, scene = ask(20)
    plain = json.loads(json.dumps(document(found, scene, None)))

    assert plain["kernel"]["formula"]["points"] == 375
    assert plain["process"]["pss_bytes"] is None
    assert {change["oom_score_adj"] for change in plain["kernel"]["changes"]} >= {-1000, 500}


@pytest.mark.parametrize(("pid", "code"), [("0", 2), ("4194305", 1), ("name", 2)])
def test_exit_codes(pid, code, capsys):
    assert main.run(["explain", pid]) == code


def test_init_of_this_machine_can_be_explained(capsys):
    assert main.run(["explain", "1"]) == 0
    assert "The guard" in capsys.readouterr().out


def test_a_guard_of_one_user_leaves_the_others_alone_and_says_so(machine):
    machine.scored(20, comm="database", anon_kib=6 * GIB_KIB, start=200, uid=0)
    scores = Scores(DEFAULT_RULES, root=str(machine.root), spare=frozenset(), rank=True)
    scene = scores.look(portraits_max=None, status={"guard": {"only_uid": 1000}})
    found = explain(scores, scene, 20)
    scores.close()

    assert found.guard_place is None
    assert found.guard_words == "it looks after processes of uid 1000 alone, and this is not one"


def test_the_score_in_the_table_is_the_one_of_the_formula(ask, machine):
    machine.scored(77, comm="odd", anon_kib=48_000)
    found, _scene = ask(77)

    assert found.scored.points == found.formula.points == 2
