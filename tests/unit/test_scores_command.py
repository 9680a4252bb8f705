"""forestall scores on a machine of files: what is shown, hostile names, exit codes, JSON."""

import itertools
import json
import re

import pytest
from click.testing import CliRunner
from rich.console import Console

from forestall.cli import scores as module
from forestall.cli.scores import View, command
from forestall.core.rules import DEFAULT_RULES
from forestall.fields import BY_NAME
from forestall.inspect.scores import Scores
from tests.fakes.proc import GIB_KIB
from tests.fakes.scored import FakeScores


@pytest.fixture
def machine(tmp_path):
    fake = FakeScores(tmp_path)
    fake.scored(20, comm="database", anon_kib=6 * GIB_KIB, start=200)
    fake.scored(21, comm="editor", anon_kib=1 * GIB_KIB, parent=20, cgroup="/a/editor.service")
    fake.scored(22, comm="idle", anon_kib=512, parent=21)
    return fake


@pytest.fixture
def scores(machine):
    found = Scores(DEFAULT_RULES, root=str(machine.root), spare=frozenset())
    yield found
    found.close()


def view(**options):
    return View(**({"above": -1001, "top": 10, "as_tree": False, "units": False} | options))


def shown(scores, **options):
    asked = view(**options)
    return str(asked.text(scores.look(portraits_max=asked.portraits_max)))


def test_every_column_of_the_seed_is_there(scores):
    lines = shown(scores).splitlines()

    assert lines[0].split() == [
        "PID",
        "NAME",
        "SCORE",
        "RAW",
        "ADJ",
        "RSS",
        "ANON",
        "PSS",
        "NEXT",
        "UNIT",
    ]
    assert lines[1].split()[:5] == ["20", "database", "375", "916", "0"]
    assert "KG" in lines[1]
    assert "editor.service" in lines[2]


def test_both_next_victims_stand_side_by_side(scores):
    text = shown(scores)

    assert "kernel next  database (20) has the largest badness" in text
    assert "guard next   database (20)" in text
    assert "Both would take the same." in text


def test_above_leaves_out_the_low_and_top_the_rest(scores):
    rows = view(above=50).rows(scores.look(portraits_max=10))
    first = view(top=1).rows(scores.look(portraits_max=1))

    assert [one.id.pid for one in rows] == [20, 21]
    assert [one.id.pid for one in first] == [20]


def test_nobody_above_says_how_high_the_highest_is(scores):
    assert "No process has a score above 800; the highest is 375." in shown(scores, above=800)


def test_where_nobody_is_to_be_seen_it_says_so(tmp_path):
    fake = FakeScores(tmp_path)
    fake.remove(1)
    alone = Scores(DEFAULT_RULES, root=str(tmp_path), spare=frozenset())
    text = shown(alone)
    alone.close()

    assert text.startswith("No process can be seen here.")
    assert "Other users' processes are hidden" in text


def test_a_tree_indents(scores):
    names = [line[5:] for line in shown(scores, as_tree=True).splitlines()[1:5]]

    assert [len(name) - len(name.lstrip()) for name in names] == [0, 2, 4, 6]


def test_units_are_summed_and_rss_is_marked_as_an_upper_bound(scores):
    line = next(x for x in shown(scores, units=True).splitlines() if "editor.service" in x)

    assert "<=1.00 GiB" in line
    assert "editor (21)" in line


def test_the_system_line_has_the_seeds_words(machine, scores):
    machine.meminfo(available=GIB_KIB)

    assert "memory may run out" in shown(scores)


def test_hostile_names_reach_no_terminal_and_no_json(machine, scores):
    machine.scored(66, comm=b"\x1b[31m\n[bold]\xff", anon_kib=9 * GIB_KIB)
    asked = view()
    scene = scores.look(portraits_max=10)

    text = str(asked.text(scene))
    assert "\x1b" not in text
    assert "[bold]" in text
    document = json.dumps(asked.document(scene))
    assert "\\u001b" not in document
    assert "\\udcff" not in document


def test_every_key_of_a_process_in_json_is_a_field(scores):
    document = view().document(scores.look(portraits_max=10))

    assert set(document["scores"][0]) <= set(BY_NAME)
    assert document["kernel_next"]["pid"] == 20
    assert document["guard_next"]["told_by_guard"] is False


def test_unknown_is_na_and_never_zero(machine, scores):
    machine.write("proc/21/status", "Uid:\t1\t1\t1\t1\nThreads:\t1\nCapEff:\t0\n")
    asked = view()
    scene = scores.look(portraits_max=10)

    line = next(x for x in str(asked.text(scene)).splitlines() if "editor" in x)
    assert line.split()[5:7] == ["N/A", "N/A"]
    row = next(one for one in asked.document(scene)["scores"] if one["pid"] == 21)
    assert row["rss_bytes"] is None


def test_watching_lasts_as_long_as_asked_without_overrunning(scores):
    slept = []
    times = iter([0.0, 0.0, 10.0, 20.0, 30.0])
    scenes = list(
        module._looks(
            scores,
            view(),
            None,
            first=scores.look(portraits_max=10),
            interval=10.0,
            duration=30.0,
            clock=lambda: next(times),
            sleep=slept.append,
        )
    )

    assert len(scenes) == 4
    assert slept == [10.0, 10.0, 10.0]


def test_the_scripts_own_call_is_a_matter_of_two_options(scores):
    parsed = command.make_context("scores", ["--watch", "--duration", "600", "--interval", "15"])
    asked = {name: parsed.params[name] for name in ("duration", "interval")}
    clock = itertools.count(step=15)
    slept = []
    first = scores.look(portraits_max=10)
    looks = module._looks(
        scores,
        view(),
        None,
        first=first,
        **asked,
        clock=lambda: float(next(clock)),
        sleep=slept.append,
    )

    assert asked == {"duration": 600.0, "interval": 15.0}
    assert len(list(looks)) == 40
    assert set(slept) == {15.0}


def test_on_a_terminal_sentences_wrap_and_the_table_does_not(scores):
    terminal = Console(force_terminal=True, width=60, height=40, no_color=True, soft_wrap=True)
    looks = iter([scores.look(portraits_max=10), scores.look(portraits_max=10)])
    with terminal.capture() as captured:
        module._follow(looks, view(), terminal, as_json=False)

    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", captured.get()).replace("\r", "")
    assert re.match(r"\[\d\d:\d\d:\d\d\]\n", shown)
    rows = [line for line in shown.splitlines() if "database" in line and "375" in line]
    assert rows
    assert max(len(row) for row in rows) <= 60
    assert "knowing less)" in " ".join(shown.split())


def test_the_defaults_are_the_seeds():
    defaults = {option.name: option.default for option in command.params}

    assert (defaults["top"], defaults["interval"], defaults["duration"]) == (10, 10.0, 300.0)
    assert module.WATCH_ABOVE == 50


def test_tree_and_units_together_make_no_sense():
    result = CliRunner().invoke(command, ["--tree", "--by-unit"])

    assert result.exit_code == 2


def test_a_guard_that_was_named_and_does_not_answer_is_an_error(tmp_path):
    from forestall.cli import main

    assert main.run(["scores", "--socket", str(tmp_path / "none")]) == 5


def test_it_runs_on_this_machine(capsys):
    from forestall.cli import main

    code = main.run(["scores", "--json", "--top", "3"])

    assert code in {0, 1}
    assert json.loads(capsys.readouterr().out)["processes"] > 0


def test_json_has_a_line_for_each_process_and_says_what_the_document_says(scores):
    document = view().document(scores.look(portraits_max=10))
    text = module.rows_json(document)

    assert json.loads(text) == document
    assert sum('"pid": 20' in line for line in text.splitlines()) == 3  # a row, and next twice


def test_ctrl_c_ends_the_watch_with_130():
    import signal
    import subprocess
    import sys

    watch = subprocess.Popen(
        [sys.executable, "-m", "forestall.cli.main", "scores", "--watch", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A runner in the background has SIGINT ignored, and a child inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    first = watch.stdout.readline()
    watch.send_signal(signal.SIGINT)
    watch.communicate(timeout=30)

    assert json.loads(first)["processes"] > 0
    assert watch.returncode == 130
