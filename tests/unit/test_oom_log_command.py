"""``forestall oom-log`` and ``forestall why`` from the command line."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import sys

import pytest
from click.testing import CliRunner

from forestall.cli import exits, why
from forestall.cli.oom_log import command as oom_log
from forestall.cli.oom_log import follow_log
from forestall.cli.oom_sources import (
    CannotRead,
    followed,
    journal_command,
    ring_source,
    run_source,
)
from forestall.forensics import Incident, Victim
from forestall.forensics.merge import on_one_line
from tests.fakes.oom_reports import FAMILIES, Made, log

UP = "Nov 22 17:00:00 host kernel: [ 1234.567890] "
REPORT = log(Made(family=FAMILIES["6.12.0-talos"]).lines(), UP)


@pytest.fixture
def report(tmp_path):
    path = tmp_path / "messages"
    path.write_bytes(REPORT)
    return path


def run(command, *arguments, stdin=None):
    return CliRunner().invoke(command, [str(argument) for argument in arguments], input=stdin)


def test_json_is_a_list_of_incidents_with_their_findings(report):
    done = run(oom_log, report, "--json")

    [incident] = json.loads(done.stdout)
    assert done.exit_code == exits.FINE.code
    assert incident["kind"] == "global"
    assert incident["victims"][0]["pid"] == 4242
    assert incident["invoker"] == {"comm": "tmux: server", "pid": 1776, "uid": 1000,
                                   "oom_score_adj": 0}  # fmt: skip
    assert incident["lines"]
    assert {"rule", "family", "cause", "confidence", "sentence", "advice", "command",
            "evidence"} == set(incident["findings"][0])  # fmt: skip
    assert "memcg_usage_kb" not in incident
    assert incident["time"] == "Nov 22 17:00:00"
    assert incident["uptime_s"] == 1234.56789


def test_an_empty_log_is_an_empty_list(tmp_path):
    empty = tmp_path / "empty"
    empty.write_bytes(b"")

    done = run(oom_log, empty, "--json")

    assert json.loads(done.stdout) == []
    assert done.exit_code == exits.FINE.code


def test_two_files_with_the_same_report_count_it_once(tmp_path, report):
    other = tmp_path / "kern.log"
    other.write_bytes(REPORT.replace(b"Nov 22 17:00:00 host kernel: ", b""))

    done = run(oom_log, report, other, "--json")

    [incident] = json.loads(done.stdout)
    assert incident["repeats"] == 1


def test_packed_logs_and_standard_input_are_read(tmp_path):
    packed = tmp_path / "messages.1.gz"
    packed.write_bytes(gzip.compress(REPORT))
    dense = tmp_path / "messages.2.xz"
    dense.write_bytes(lzma.compress(REPORT.replace(b"4242", b"4243")))

    done = run(oom_log, packed, dense, "--json")
    piped = run(oom_log, "-", "--json", stdin=REPORT)

    assert [i["victims"][0]["pid"] for i in json.loads(done.stdout)] == [4242, 4243]
    assert len(json.loads(piped.stdout)) == 1


def test_a_broken_archive_is_a_message_and_not_a_traceback(tmp_path):
    broken = tmp_path / "messages.gz"
    broken.write_bytes(gzip.compress(REPORT)[:-20])

    done = run(oom_log, broken)

    assert done.exit_code == exits.KERNEL.code
    assert "messages.gz" in done.stderr


def test_a_missing_file_is_a_mistake_of_usage(tmp_path):
    assert run(oom_log, tmp_path / "nothing").exit_code == exits.USAGE.code


def test_since_leaves_out_what_is_older(tmp_path):
    path = tmp_path / "log"
    old = REPORT.replace(b"Nov 22 17:00:00", b"2024-05-05T12:34:56+0200").replace(b"4242", b"4241")
    new = REPORT.replace(b"Nov 22 17:00:00", b"2025-06-05T12:34:56+0200")
    path.write_bytes(old + new)

    done = run(oom_log, path, "--since", "2025-01-01", "--json")

    assert [i["victims"][0]["pid"] for i in json.loads(done.stdout)] == [4242]
    assert run(oom_log, path, "--since", "once upon a time").exit_code == exits.USAGE.code


def test_a_hostile_name_reaches_the_terminal_as_an_escape(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(REPORT.replace(b"leaker", b"\x1b[2J\x07ev"))

    done = run(oom_log, path)
    told = run(why.command, "--file", path)

    for output in (done.stdout, told.stdout):
        assert "\x1b[2J" not in output
        assert "\x07" not in output


def test_why_tells_the_last_one_and_finds_by_name_pid_and_unit(report):
    plain = run(why.command, "--file", report)

    assert plain.exit_code == exits.FINE.code
    assert "Why it and not another" in plain.stdout
    for asked in ("leaker", "4242", "box"):
        assert run(why.command, asked, "--file", report).exit_code == exits.FINE.code


def test_why_of_a_survivor_says_that_it_was_passed_over(report):
    done = run(why.command, "sshd", "--file", report)

    assert done.exit_code == exits.PROBLEM.code
    assert "was not killed" in done.stderr
    assert "4242" in done.stderr


def test_why_as_json_has_the_story_and_the_incident(report):
    done = run(why.command, "--last", "--file", report, "--json")

    told = json.loads(done.stdout)
    assert told["incident"]["victims"][0]["comm"] == "leaker"
    assert told["story"][0]["heading"] == "What happened"


def test_why_of_a_name_and_the_last_at_once_is_refused(report):
    assert run(why.command, "x", "--last", "--file", report).exit_code == exits.USAGE.code


def test_the_guards_own_records_stand_on_the_same_line():
    kernel = Incident(
        kind="global", kind_from="", uptime_s=50.0, victims=(Victim(pid=1, comm="a"),)
    )
    guard = Incident(
        kind="userspace-oom", kind_from="", agent="forestall", uptime_s=40.0,
        victims=(Victim(pid=2, comm="b"),),
    )  # fmt: skip

    line = on_one_line([kernel], [guard])

    assert [one.agent for one in line] == ["forestall", None]
    assert list(why.no_records()) == []


def test_the_journal_is_asked_with_a_list_and_only_for_those_who_kill():
    arguments = journal_command("2 hours ago; rm -rf /")

    assert "--since=2 hours ago; rm -rf /" in arguments
    assert arguments.index("_TRANSPORT=kernel") < arguments.index("SYSLOG_IDENTIFIER=earlyoom")
    assert "--follow" in journal_command(None, follow=True)


def test_following_tells_each_incident_once_and_after_a_silence(capsys):
    portions = [REPORT[:400], REPORT[400:], None, REPORT, None]

    follow_log(iter(portions), as_json=True)

    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 1
    assert json.loads(printed[0])["victims"][0]["pid"] == 4242


def test_the_ring_buffer_is_read_record_by_record(tmp_path):
    path = tmp_path / "kmsg"
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        os.write(writer, REPORT[:3000])
        source = ring_source(str(path))
    finally:
        os.close(writer)

    assert b"".join(source.portions) == REPORT[:3000]


def test_a_commands_output_is_read_as_it_comes():
    talks = [sys.executable, "-c", "import sys; sys.stdout.write('x' * 300_000)"]
    silent = [sys.executable, "-c", ""]
    fails = [sys.executable, "-c", "raise SystemExit(1)"]

    source = run_source("talks", talks)

    assert source is not None
    assert sum(len(portion) for portion in source.portions) == 300_000
    quiet = run_source("silent", silent)
    assert quiet is not None
    assert quiet.portions == ()
    assert run_source("fails", fails) is None
    assert run_source("absent", ["/nonexistent/tool"]) is None


def test_following_a_command_gives_its_output_and_ends_with_it():
    portions = list(followed([sys.executable, "-c", "print('a'); print('b')"]))

    assert b"".join(portion or b"" for portion in portions) == b"a\nb\n"


def test_without_permission_the_message_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(CannotRead, match="dmesg_restrict"):
        ring_source(str(tmp_path / "absent"))
