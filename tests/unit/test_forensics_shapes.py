"""Each odd shape that real logs have had, made anew and as small as it can be."""

from __future__ import annotations

import json

import pytest

from forestall.forensics import Incident, Scanner, parse
from tests.fakes.oom_reports import FAMILIES, Made, log

HEAD = "java invoked oom-killer: gfp_mask=0x140cca(GFP_HIGHUSER_MOVABLE), order=0, oom_score_adj=0"
CPU = "CPU: 3 PID: 900 Comm: java Not tainted 6.1.0-18-amd64 #1"
KILL = (
    "Out of memory: Killed process 31 (leaker) total-vm:812kB, anon-rss:404kB, file-rss:4kB,"
    " shmem-rss:0kB, UID:7 pgtables:52kB oom_score_adj:0"
)
OOM_KILL = (
    "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,"
    "task_memcg=/a,task=leaker,pid=31,uid=7"
)
UP = "[  100.000001] "


def read(*lines: str, prefix: str = "") -> list[Incident]:
    return parse([log(list(lines), prefix)])


def kinds(incidents: list[Incident]) -> list[str]:
    return [incident.kind for incident in incidents]


def pids(incidents: list[Incident]) -> list[int | None]:
    return [victim.pid for incident in incidents for victim in incident.victims]


# -- kill lines -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "kind", "uid"),
    [
        ("Out of memory: Killed process 31 (oracle).", "global", None),
        ("Killed process 31 (x) vsz:9kB, anon-rss:5kB, file-rss:4kB", "memcg-or-global", None),
        ("Killed process 31, UID 5, (x) total-vm:9kB, anon-rss:5kB", "memcg-or-global", 5),
        ("Killed process 31 (x), UID 5, total-vm:9kB, anon-rss:5kB", "memcg-or-global", 5),
        ("Memory cgroup out of memory: Killed process 31 (x) total-vm:9kB", "memcg", None),
        (
            "Out of memory (oom_kill_allocating_task): Killed process 31 (x) total-vm:9kB, UID:5 p",
            "global",
            5,
        ),
    ],
)
def test_a_lone_kill_line_of_any_kernel_is_an_incident(line, kind, uid):
    [incident] = read(line)

    assert incident.kind == kind
    assert incident.victim is not None
    assert (incident.victim.pid, incident.victim.uid) == (31, uid)
    assert not incident.complete


def test_the_reason_stands_on_the_line_that_chose():
    [incident] = read(
        "Out of memory (oom_kill_allocating_task): Kill process 5 (sh) score 0 or sacrifice child",
        "Killed process 5 (sh) total-vm:1kB, anon-rss:1kB, file-rss:0kB",
    )

    assert incident.kind == "global"
    assert incident.victim is not None
    assert incident.victim.score == 0


def test_a_child_may_die_for_the_one_that_was_scored():
    [incident] = read(
        "Memory cgroup out of memory: Kill process 4142 (python3) score 1957 or sacrifice child",
        "Killed process 4254 (worker) total-vm:11968kB, anon-rss:4288kB, file-rss:3972kB",
    )

    assert pids([incident]) == [4254]
    assert incident.scored is not None
    assert (incident.scored.pid, incident.scored.comm, incident.scored.score) == (
        4142,
        "python3",
        1957,
    )


def test_a_thread_may_be_scored_and_its_leader_die():
    [incident] = read(
        "Out of memory: Kill process 91 (Web Content) score 300 or sacrifice child",
        "Killed process 90 (firefox) total-vm:9kB, anon-rss:8kB, file-rss:0kB, shmem-rss:0kB",
    )

    assert incident.victim is not None
    assert (incident.victim.pid, incident.victim.comm) == (90, "firefox")


def test_a_lone_oom_kill_line_names_the_victim_and_not_the_invokers_cpuset():
    [incident] = read(OOM_KILL.replace("cpuset=/", "cpuset=aegis"))

    assert incident.kind == "global"
    assert incident.cpuset == "aegis"
    assert incident.task_memcg == "/a"
    assert pids([incident]) == [31]


def test_an_oom_kill_line_printed_in_pieces_is_put_together():
    cut = OOM_KILL.index(",task=")
    foreign = ("====", "BUG: KASAN: something", "CPU: 1 PID: 5 Comm: other Not tainted 5.9 #1")

    [incident] = read(OOM_KILL[:cut], *foreign, OOM_KILL[cut:], KILL, prefix=UP)

    assert pids([incident]) == [31]
    assert incident.victim is not None
    assert incident.victim.comm == "leaker"


def test_a_constraint_no_kernel_knows_is_kept_and_the_scope_decides():
    unknown = OOM_KILL.replace("CONSTRAINT_NONE", "CONSTRAINT_BRAND_NEW")
    grouped = unknown.replace("global_oom", "oom_memcg=/limited")

    [first] = read(unknown, KILL)
    [second] = read(grouped, KILL.replace("Out", "Memory cgroup out"))

    assert (first.kind, first.constraint) == ("global", "CONSTRAINT_BRAND_NEW")
    assert (second.kind, second.oom_memcg) == ("memcg", "/limited")


def test_a_kernel_without_groups_or_cpusets_leaves_those_fields_out():
    line = "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),task=leaker,pid=31,uid=7"

    [incident] = read(HEAD, CPU, line, KILL)

    assert (incident.cpuset, incident.mems_allowed, incident.task_memcg) == (None, None, None)
    assert incident.kind == "global"


def test_a_group_dies_as_one_incident_and_pasted_lines_count_once():
    group = "Tasks in /build are going to be killed due to memory.oom.group set"
    first = KILL.replace("Out of memory", "Memory cgroup out of memory")
    others = [first.replace("31 (leaker)", f"{pid} (cc1)") for pid in (41, 42, 43, 42, 41)]

    [incident] = read(HEAD, CPU, first, group, first, *others, prefix=UP)

    assert pids([incident]) == [31, 41, 42, 43]
    assert incident.oom_group == "/build"
    assert incident.kind == "memcg"


def test_the_reaper_says_what_was_left():
    reaper = (
        "oom_reaper: reaped process 31 (leaker), now anon-rss:0kB, file-rss:64kB, shmem-rss:4kB"
    )

    [incident] = read(KILL, reaper + ", pgtables:9kB total-vm:5kB")

    [reaped] = incident.reaped
    assert (reaped.pid, reaped.comm) == (31, "leaker")
    assert (reaped.anon_rss_kb, reaped.file_rss_kb, reaped.shmem_rss_kb) == (0, 64, 4)


def test_kills_without_reports_are_incidents_each():
    lines = [KILL.replace("31", str(pid)) for pid in range(31, 39)]

    incidents = read(*lines, prefix=UP)

    assert pids(incidents) == list(range(31, 39))
    assert len(incidents) == 8


# -- endings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ending",
    [
        (
            "Out of memory and no killable processes...",
            "Kernel panic - not syncing: System is deadlocked on memory",
        ),
        ("Kernel panic - not syncing: Out of memory and no killable processes...",),
    ],
)
def test_nothing_to_kill_is_an_incident_of_its_own(ending):
    [incident] = read(HEAD, CPU, *Made(family=FAMILIES["4.18.0-generic"]).memory(), *ending)

    assert incident.kind == "no-killable"
    assert incident.panic is not None
    assert incident.victims == ()


def test_nothing_to_kill_inside_a_group_is_about_the_group():
    top = Made(family=FAMILIES["6.12.0-talos"], scope="memcg").top()

    incidents = read(*top, "Out of memory and no killable processes...", *top)

    assert kinds(incidents) == ["memcg", "memcg"]


def test_a_warning_after_which_the_machine_goes_on_was_about_a_group():
    incidents = read(" </TASK>", "Out of memory and no killable processes...", HEAD, CPU)

    assert kinds(incidents) == ["memcg", "global"]


def test_the_trace_shows_that_there_was_nothing_to_kill_before_the_message_does():
    [incident] = read(
        HEAD, CPU, "Call Trace:", " dump_stack+0x14/0x1a", " dump_header+0x46/0x190",
        " out_of_memory.cold+0x8/0x78", " __alloc_pages_slowpath.constprop.0+0xc25/0xfa0",
    )  # fmt: skip

    assert incident.kind == "no-killable"


@pytest.mark.parametrize("which", ["system-wide", "compulsory"])
def test_panic_on_oom_is_told_from_having_nothing_to_kill(which):
    [incident] = read(
        HEAD.replace("0x140cca(GFP_HIGHUSER_MOVABLE)", "0x0()"), CPU,
        f"Kernel panic - not syncing: Out of memory: {which} panic_on_oom is enabled",
    )  # fmt: skip

    assert incident.kind == "panic_on_oom"
    assert incident.gfp_flags is None


def test_a_panic_of_another_cause_belongs_to_no_incident():
    [incident] = read(OOM_KILL, KILL, "Kernel panic - not syncing: panic_on_warn set ...")

    assert incident.panic is None


@pytest.mark.parametrize(
    "lines",
    [
        (HEAD.replace("order=0", "order=-1"), CPU, OOM_KILL, KILL),
        ("sysrq: Manual OOM execution", HEAD, CPU, KILL),
        ("SysRq : Manual OOM execution", HEAD, CPU, " moom_callback+0x7a/0xb0", KILL),
        (
            "sysrq: SysRq : Manual OOM execution",
            "Kernel panic - not syncing: Out of memory: compulsory panic_on_oom is enabled",
        ),
    ],
)
def test_a_person_asked_for_it(lines):
    [incident] = read(*lines)

    assert incident.kind == "sysrq"


# -- damage and mixture ---------------------------------------------------------------------------


def test_another_processors_stack_is_not_the_invokers():
    lines = (
        HEAD, "CPU: 1 PID: 55 Comm: other Not tainted 6.1.0 #1", " bad_page+0x12/0x34",
        CPU, " __alloc_pages+0x1/0x2", KILL,
    )  # fmt: skip

    [incident] = read(*lines, prefix=UP)

    assert incident.invoker is not None
    assert incident.invoker.pid == 900


def test_callers_tell_two_streams_apart():
    mine, other = "[  1.000001][ T900] ", "[  1.000001][    C2] "
    lines = [
        mine + HEAD, other + "Redzone  edf89b40: cc cc cc", mine + CPU,
        other + "CPU: 2 PID: 1 Comm: java Not tainted 6.1.0 #1", mine + KILL,
    ]  # fmt: skip

    [incident] = read(*lines)

    assert incident.invoker is not None
    assert incident.invoker.pid == 900


def test_a_daemons_line_does_not_cut_the_table():
    made = Made(family=FAMILIES["6.1.0-18-amd64"])
    rows = made.table()
    journald = "systemd-journald[412]: Under memory pressure, flushing caches."

    [incident] = read(*made.top(), *made.memory(), *rows[:4], journald, *rows[4:], *made.kill(),
                      prefix=UP)  # fmt: skip

    assert len(incident.tasks) == len(made.processes)


def test_a_log_that_starts_in_the_middle_still_has_an_incident():
    made = Made(family=FAMILIES["6.1.0-18-amd64"])

    [incident] = read(*made.memory()[7:], *made.table()[:2])

    assert incident.kind == "global"
    assert incident.ram_pages == 524_158
    assert not incident.complete
    assert "first line" in incident.missing


def test_another_failed_allocations_memory_dump_is_no_incident():
    memory = Made(family=FAMILIES["6.1.0-18-amd64"]).memory()

    incidents = read(
        "nginx: page allocation failure: order:4, mode:0x40cc0(GFP_KERNEL)",
        "CPU: 1 PID: 5 Comm: nginx Not tainted 6.1 #1",
        *memory,
        prefix=UP,
    )

    assert incidents == []


def test_a_report_that_is_never_finished_is_given_when_the_next_begins():
    incidents = read(HEAD, CPU, HEAD.replace("java", "sh"), CPU.replace("java", "sh"), KILL,
                     prefix=UP)  # fmt: skip

    assert [i.victim is not None for i in incidents] == [False, True]
    assert incidents[0].missing == ("memory totals", "task table", "kill line")


def test_the_same_report_twice_is_one_incident():
    made = [UP + line for line in Made(family=FAMILIES["6.1.0-18-amd64"]).lines()]

    [incident] = read(*made, *made)

    assert incident.repeats == 1
    assert pids([incident]) == [4242]


def test_suppressed_reports_are_told():
    [incident] = read("oom_kill_process: 70 callbacks suppressed", HEAD, CPU, KILL)

    assert incident.hidden_kills == 70


def test_another_functions_suppressed_messages_are_not_kills():
    [incident] = read("slab_out_of_memory: 72 callbacks suppressed", HEAD, CPU, KILL)

    assert incident.hidden_kills is None


def test_a_pager_that_clips_lines_gives_whole_fields_only():
    clipped = [line[:79] + ">" if len(line) > 79 else line for line in (HEAD, CPU, KILL)]

    [incident] = read(*clipped)

    assert incident.victim is not None
    assert incident.victim.pid == 31
    assert incident.victim.total_vm_kb == 812
    assert incident.victim.oom_score_adj is None
    assert incident.invoker is not None
    assert incident.invoker.oom_score_adj is None


def test_half_a_number_at_the_end_of_the_log_is_not_a_number():
    whole = (OOM_KILL + "\n" + KILL).encode()
    cut = whole[: whole.index(b"oom_score_adj:0")] + b"oom_score_adj:-9"

    [incident] = parse([cut])

    assert incident.victim is not None
    assert incident.victim.oom_score_adj is None
    assert incident.victim.pgtables_kb == 52


def test_blanks_of_a_terminal_do_not_matter():
    [incident] = parse([b"".join(line.ljust(200).encode() + b"\r\n" for line in (HEAD, CPU, KILL))])

    assert pids([incident]) == [31]
    assert incident.invoker is not None
    assert incident.invoker.oom_score_adj == 0


def test_the_line_is_read_out_of_json_records():
    journald = json.dumps({"MESSAGE": KILL, "_TRANSPORT": "kernel", "SYSLOG_FACILITY": "0"})
    docker = json.dumps({"log": KILL.replace("31", "32") + "\n", "stream": "stdout"})

    incidents = read(journald, docker)

    assert pids(incidents) == [31, 32]


@pytest.mark.parametrize(
    "prefix",
    [
        "Nov 22 17:00:00 host app[77]: ",
        "user: warning: [2026-01-12T20:27:31.913975631Z]: ",
        "<12>[  12.000001] ",
        "12,77,1234567,-;",
        "[  12.000001] app[77]: ",
    ],
)
def test_user_space_that_imitates_the_kernel_is_not_believed(prefix):
    assert read(prefix + KILL) == []


def test_systemds_account_of_a_kernel_kill_is_not_another_kill():
    incidents = read(
        UP + KILL,
        UP + "systemd[1]: a.service: The kernel OOM killer killed some processes in this unit.",
        "Nov 22 17:00:00 h systemd[1]: a.service: Failed with result 'oom-kill'.",
        "Nov 22 17:00:00 h systemd[1]: a.service: Main process exited, code=killed, status=9/KILL",
    )

    assert pids(incidents) == [31]


def test_hosts_in_one_log_are_told_apart():
    one = [f"Nov 22 17:00:00 one kernel: {line}" for line in (HEAD, CPU, KILL)]
    two = [line.replace(" one ", " two ").replace("31", "77") for line in one]
    mixed = [line for pair in zip(one, two, strict=True) for line in pair]

    incidents = read(*mixed)

    assert sorted((i.host, i.victim.pid) for i in incidents) == [("one", 31), ("two", 77)]
    assert all(i.invoker is not None for i in incidents)


def test_the_page_size_is_absent_where_nothing_shows_it():
    [shown] = read(KILL)
    [hidden] = read(OOM_KILL)
    [ambiguous] = read(KILL.replace("812", "640").replace("404", "320").replace("rss:4k", "rss:0k"))

    assert shown.page_size_kb == 4
    assert hidden.page_size_kb is None
    assert ambiguous.page_size_kb is None


# -- heads that the log ends after ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (
            "apid invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=-998",
            "memcg",
        ),
        ("java invoked oom-killer: gfp_mask=0xd0, order=0, oom_score_adj=0", "memcg"),
        (
            "kswapd0 invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
            "global",
        ),
        (HEAD, "global"),
    ],
)
def test_a_head_alone_is_judged_by_what_was_asked_for(head, kind):
    [incident] = read(head)

    assert (incident.kind, incident.kind_from) == (kind, "allocation flags")


def test_a_table_without_the_state_before_it_does_not_say_what_ran_out():
    made = Made(family=FAMILIES["6.12.0-talos"])

    [incident] = read(HEAD, CPU, "Hardware name: Any", *made.table())

    assert incident.kind == "memcg-or-global"


# -- reading in portions --------------------------------------------------------------------------


def test_a_quiet_log_is_skipped_and_line_numbers_are_kept():
    noise = "Nov 22 17:00:00 host app[5]: nothing of interest here\n" * 50_000
    data = noise.encode() + log([HEAD, CPU, KILL], UP) + noise.encode()

    [incident] = parse([data[i : i + 7919] for i in range(0, len(data), 7919)])

    assert incident.lines == ((50_001, 50_003),)


def test_a_line_without_end_costs_no_memory():
    scanner = Scanner()
    for _portion in range(200):
        assert list(scanner.feed(b"Killed process " * 1000)) == []

    assert len(scanner._tail) < 400_000
    assert list(scanner.feed(b"\n" + log([KILL]))) != [] or list(scanner.finish()) != []
