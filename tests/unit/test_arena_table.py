"""Results on disk, drawn together, and shown."""

import json
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from arena import plots, table
from arena.digest import Beats, Death, RoleCount, Run
from arena.errors import ResultError
from arena.figures import sheets
from arena.results import Result, add, load, load_all, path_of
from arena.scenarios import SCENARIOS

ALIVE = RoleCount(started=1, live=1, killed=0, failed=0, finished=0)
KILLED = RoleCount(started=1, live=0, killed=1, failed=0, finished=0)


def result(guard="earlyoom", number=1, scenario="fast", stall=40.0, **more):
    roles = dict.fromkeys(("service", "sshd", "mail", "editor", "browser"), ALIVE)
    run = Run(
        complete=True,
        gone_s=8.0,
        recovered_s=8.0,
        kernel_kills=0,
        trouble_length_s=12.0,
        beats=Beats(base_p50=4.0, p50=5.0, p99=9.0, on_time_share=1.0, stall=stall),
        deaths=(Death(role="culprit", program="node", signal=15, by="guard", at_s=8.0),),
        roles={**roles, "culprit": KILLED},
        series=((0.0, 500.0), (8.0, 50.0), (9.0, 500.0)),
    )
    return Result(
        scenario=scenario,
        guard=guard,
        guest="bookworm",
        release="6.1.0-1",
        number=number,
        seed=5,
        other_cores=0.1,
        wall_s=20.0,
        accelerator="tcg",
        run=replace(run, **more),
    )


def killing_browser(**more):
    seen = result(**more)
    roles = {**seen.run.roles, "browser": KILLED}
    lost = Death(role="browser", program="firefox-esr", signal=15, by="guard", at_s=7.0)
    return replace(seen, run=replace(seen.run, roles=roles, deaths=(lost, *seen.run.deaths)))


def sheet_of(*results):
    (sheet,) = sheets(results, SCENARIOS)
    return sheet


def test_results_come_back_as_they_were_stored_and_replace_their_own_number(tmp_path):
    add(result(stall=1.0), tmp_path)
    add(result(number=2), tmp_path)
    add(result(guard="nohang"), tmp_path)
    add(result(stall=2.0), tmp_path)

    assert load(path_of("bookworm", "earlyoom", tmp_path)) == [result(stall=2.0), result(number=2)]
    assert len(load_all(tmp_path)) == 3
    assert not list(tmp_path.glob("*.part"))


def test_a_file_holds_one_run_per_line(tmp_path):
    add(result(), tmp_path)
    add(result(number=2), tmp_path)
    lines = path_of("bookworm", "earlyoom", tmp_path).read_text().splitlines()

    assert len(lines) == 4
    assert json.loads(lines[1].rstrip(","))["number"] == 1


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format":1}', '{"format":9,"runs":[]}', '{"format":1,"runs":[{}]}']
)
def test_a_damaged_file_is_refused_by_name(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)

    with pytest.raises(ResultError, match=r"x\.json"):
        load(path)


def test_a_cell_passes_only_if_all_its_runs_passed():
    sheet = sheet_of(result(), killing_browser(number=2), result(number=3))
    cell = sheet.cell("fast", "earlyoom")

    assert cell.verdict == "fail"
    assert cell.passed == 2
    assert cell.lost_bystanders == ("browser",)


def test_a_lost_guest_is_shown_as_lost_and_hides_no_failure():
    lost = replace(result(number=2), run=Run(complete=False))

    assert sheet_of(result(), lost).cell("fast", "earlyoom").verdict == "lost"
    assert sheet_of(killing_browser(), lost).cell("fast", "earlyoom").verdict == "fail"


def test_latency_figures_are_medians_of_three():
    runs = [result(number=n, stall=stall) for n, stall in enumerate((30.0, 900.0, 50.0), start=1)]

    assert sheet_of(*runs).cell("fast", "earlyoom").stall_ms == 50.0


def test_the_best_peer_is_the_shortest_stall_among_those_that_killed_no_innocent():
    sheet = sheet_of(
        killing_browser(guard="earlyoom", stall=5.0),
        result(guard="nohang", stall=80.0),
        result(guard="oomd", stall=700.0),
    )

    assert sheet.best_peer("fast", table.PEERS).guard == "nohang"
    assert sheet.best_peer("slow", table.PEERS) is None


def test_ratios_say_what_ours_is_to_none_and_to_the_best_and_whether_the_bar_is_met():
    sheet = sheet_of(
        result(guard="forestall", stall=40.0),
        result(guard="none", stall=800.0),
        result(guard="nohang", stall=160.0),
    )

    assert (
        table.ratios(sheet)[2] == "| fast | 40 ms | 800 ms | 160 ms (nohang) | 0.05 | 0.25 | met |"
    )


@pytest.mark.parametrize(
    ("ours_ms", "peers_ms", "all_run", "bar"),
    [
        (50.0, 20.0, False, "met"),
        # One that is still to run can only be better yet.
        (90.0, 160.0, False, "missed"),
        (70.0, 160.0, False, "open"),
        (70.0, 160.0, True, "met"),
        (90.0, 160.0, True, "missed"),
    ],
)
def test_what_a_missing_peer_could_still_change_is_open(ours_ms, peers_ms, all_run, bar):
    ours = result(guard="forestall", stall=ours_ms)
    peers = [result(guard=guard, stall=peers_ms) for guard in table.PEERS]

    line = table.ratios(sheet_of(ours, *(peers if all_run else peers[:-1])))[2]

    assert line.endswith(f"| {bar} |")


def test_before_any_peer_has_run_the_bar_is_open():
    ours = result(guard="forestall", stall=70.0)

    assert table.ratios(sheet_of(ours))[2].endswith("| open |")


def test_a_scenario_not_run_is_said_to_be_not_run():
    lines = table.verdicts(
        sheet_of(result(), result(guard="none", scenario="slow")), ["none", "earlyoom"]
    )

    assert lines[2].endswith("| not run | **pass** 40 ms |")
    assert lines[-1] == "| passed | **1 of 1** | **1 of 1** |"


def test_the_short_form_says_in_a_word_how_each_fared():
    lines = table.short([sheet_of(result(guard="forestall", stall=46.0), killing_browser())])

    assert lines[0] == "|  | forestall | earlyoom | nohang | systemd-oomd | oomd | no guard |"
    assert lines[2].startswith(
        "| leak at full speed, with swap | ok, 46 ms | kills browser | not run |"
    )
    assert lines[-1].startswith("| passed, of those run | 1 of 1 | 0 of 1 | 0 of 0 |")


def test_every_failure_is_named():
    lines = table.failures(sheet_of(killing_browser(), killing_browser(number=2)), ["earlyoom"])

    assert "- fast (0 of 2 passed): browser died by the guard at 7.0 s (x 2); " in lines[-1]


def test_only_the_text_between_the_markers_is_replaced():
    text = "before\n<!-- a -->\nold\n<!-- /a -->\nafter\n"

    assert table.replace_between(text, "a", ["new"]) == (
        "before\n<!-- a -->\n\nnew\n\n<!-- /a -->\nafter\n"
    )
    with pytest.raises(ResultError):
        table.replace_between(text, "b", [])


def test_the_report_holds_all_parts():
    text = "\n".join(table.report([sheet_of(result(guard="forestall"), killing_browser())]))

    for part in (
        "bookworm, Linux 6.1.0-1",
        "kills browser",
        "Every failure by name",
        "what a guard",
    ):
        assert part.lower() in text.lower()


def test_plots_are_well_formed_and_hold_a_mark_per_guard():
    sheet = sheet_of(result(), killing_browser(guard="nohang", stall=90.0))
    stalls = plots.stalls(sheet, list(SCENARIOS), ["earlyoom", "nohang"])
    memory = plots.memory({"earlyoom": sheet.cell("fast", "earlyoom")}, "a < b")

    ET.fromstring(stalls)
    ET.fromstring(memory)

    assert "earlyoom: 40 ms, pass" in stalls
    assert "nohang: 90 ms, fail" in stalls
    assert "a &lt; b" in memory


@pytest.mark.parametrize(
    ("document", "marker", "lines"),
    [
        (table.DOCUMENT, "arena:results", table.report),
        (table.README, "arena:short", table.short),
    ],
    ids=["arena.md", "README"],
)
def test_the_documents_tables_agree_with_the_stored_results(document, marker, lines):
    text = document.read_text()
    fresh = table.replace_between(text, marker, lines(sheets(load_all(), SCENARIOS)))

    assert fresh == text, "run: python -m arena table"
