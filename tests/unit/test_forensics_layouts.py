"""Reports of every family of releases, scope, page size, prefix, and odd name are read exactly."""

from __future__ import annotations

import json

import pytest

from forestall.forensics import parse
from forestall.forensics.jsonable import to_json
from tests.fakes.oom_reports import FAMILIES, SCOPES, Made, Process, log

PREFIXES = {
    "bare": "",
    "uptime": "[ 1234.567890] ",
    "caller": "[ 1234.567890][ T4321] ",
    "level": "<4>[ 1234.567890] ",
    "syslog": "Nov 22 17:00:00 host-1 kernel: ",
    "syslog with uptime": "Nov 22 17:00:00 host-1 kernel: [ 1234.567890] ",
    "russian journal": "апр 28 01:23:30 PC kernel: ",
    "german dmesg": "[Di Aug 12 03:54:03 2025] ",
    "japanese journal": "5月 14 23:17:23 host kernel: ",
    "iso with a comma": "2024-05-05T12:34:56,789012+02:00 ",
    "rsyslog iso": "2024-05-05T12:34:56.789012+02:00 host kernel: [ 1234.567890] ",
    "journal iso": "2024-05-05T12:34:56+0200 host kernel: ",
    "cat": "kernel: ",
    "talos": " kern: warning: [2025-05-18T15:40:20.653515542Z]: ",
    "talosctl": "172.16.1.110: kern: warning: [2024-07-16T19:11:36.10466434Z]: ",
    "dmesg -x": "kern  :warn  : [ 1234.567890] ",
    "quoted": "> ",
    "quoted twice": "> > [ 1234.567890] ",
    "piped": " | [ 1234.567890][T23028] ",
    "raw record": "4,1234,1234567890,-;",
    "raw record with caller": "4,1234,1234567890,-,caller=T77;",
    "year first": "2024 May 14 23:17:23 host kernel: ",
    "monotonic journal": "[ 1234.567890] host kernel: ",
    "guest's console": 'Mar  1 10:00:00 hv kata[77]: msg="reading" vmconsole="[ 1234.567890] ',
    "esxi": "2021-10-01T12:00:00.123Z| vcpu-0| I005: Guest: [ 1234.567890] ",
    "xen": "(d12) [ 1234.567890] ",
    "padded": "     ",
}


# Kernels before 5.0 do not print the constraint, so a confined request looks global there.
PRINTED = [
    (release, scope)
    for release, family in FAMILIES.items()
    for scope in (SCOPES if family.oom_kill else ("global", "memcg"))
]


@pytest.mark.parametrize(("release", "scope"), PRINTED)
@pytest.mark.parametrize("page_kb", [4, 16, 64])
def test_a_report_of_any_release_gives_its_victim_kind_and_table(release, scope, page_kb):
    family = FAMILIES[release]
    made = Made(family=family, scope=scope, page_kb=page_kb)

    [incident] = parse([log(made.lines())])

    victim = incident.victim
    assert incident.kind == scope
    assert victim is not None
    assert (victim.pid, victim.comm) == (4242, "leaker")
    assert victim.total_vm_kb == made.victim.total_vm * page_kb
    assert victim.anon_rss_kb == made.victim.anon * page_kb
    assert victim.file_rss_kb == made.victim.file * page_kb
    assert victim.uid == (1000 if family.uid_printed else None)
    assert incident.page_size_kb == page_kb
    assert incident.invoker is not None
    assert (incident.invoker.comm, incident.invoker.pid) == ("tmux: server", 1776)
    assert [task.comm for task in incident.tasks] == [p.comm for p in made.processes]
    assert [task.total_vm_pages for task in incident.tasks] == [p.total_vm for p in made.processes]
    assert incident.task_layout == "header"
    assert incident.kernel == release


@pytest.mark.parametrize("release", FAMILIES)
def test_the_machines_totals_are_read_where_they_are_printed(release):
    [incident] = parse([log(Made(family=FAMILIES[release]).lines())])

    assert incident.ram_pages == 524_158
    assert incident.total_ram_kb == 524_158 * 4
    assert incident.swap_total_kb == 2_097_148
    assert incident.swap_free_kb == 128
    assert incident.memcg_usage_kb is None


@pytest.mark.parametrize("release", FAMILIES)
def test_a_groups_usage_and_paths_are_read(release):
    made = Made(family=FAMILIES[release], scope="memcg")

    [incident] = parse([log(made.lines())])

    assert incident.memcg_usage_kb == incident.memcg_limit_kb == 524_288
    assert incident.oom_memcg == made.oom_memcg
    assert incident.task_memcg == f"{made.oom_memcg}/box"
    assert incident.swap_limit_kb is None, "no limit is not a limit"
    assert incident.ram_pages is None


@pytest.mark.parametrize("release", FAMILIES)
def test_columns_are_told_from_the_rows_where_the_header_is_lost(release):
    made = Made(family=FAMILIES[release], header=False)

    [incident] = parse([log(made.lines())])

    assert incident.task_layout == "rows"
    assert incident.task_columns == made.family.columns
    assert incident.tasks[-1].rss_pages == 250_007 + 13


@pytest.mark.parametrize("name", PREFIXES)
@pytest.mark.parametrize("release", ["2.6.32-754.el6.x86_64", "4.18.0-generic", "6.12.0-talos"])
def test_no_prefix_hides_a_report(name, release):
    made = Made(family=FAMILIES[release])
    plain = parse([log(made.lines())])[0]

    [incident] = parse([log(made.lines(), PREFIXES[name])])

    assert incident.victims == plain.victims
    assert incident.kind == plain.kind
    assert incident.invoker == plain.invoker
    assert incident.tasks == plain.tasks
    assert incident.ram_pages == plain.ram_pages


@pytest.mark.parametrize(
    "comm",
    [
        "npm start",
        "tmux: server",
        "runc:[2:INIT]",
        "(sd-pam)",
        "((resolved))",
        "531",
        "CPU 0/KVM",
        "a,pid=1,uid=0",
        "x,task=y",
        ") total-vm:1kB",
        "kernel: oom",
        "score 5 or",
        "a[1]:",
        "\\x1b[31mred",
        "UID 0, (root)",
        "[ 12.345678] x",
    ],
)
@pytest.mark.parametrize("release", ["3.10.0-1160.el7.x86_64", "6.1.0-18-amd64"])
def test_a_hostile_name_is_a_name(comm, release):
    odd = Process(pid=777, comm=comm, total_vm=99_001, anon=88_001)
    bystander = Process(pid=778, comm="bystander")
    made = Made(family=FAMILIES[release], victim=odd, invoker=odd, processes=(bystander, odd))

    [incident] = parse([log(made.lines(), "[  100.000001] ")])

    assert incident.victim is not None
    assert (incident.victim.pid, incident.victim.comm) == (777, comm)
    assert incident.invoker is not None
    assert incident.invoker.comm == comm
    assert incident.invoker.pid == 777
    assert incident.victim.total_vm_kb == 99_001 * 4
    json.dumps(to_json(incident))


def test_a_record_with_line_feeds_is_read_in_every_loggers_notation():
    made = Made(family=FAMILIES["6.1.0-18-amd64"])
    lines = made.lines()
    start = lines.index("Mem-Info:") + 1
    block = lines[start : start + 6]

    def with_block(joined: list[str], prefix: str) -> bytes:
        before, after = lines[:start], lines[start + 6 :]
        return b"".join((log(before, prefix), log(joined), log(after, prefix)))

    journal = "Nov 22 17:00:00 host kernel: "
    indented = [journal + block[0], *(" " * 29 + line for line in block[1:])]
    record = "4,77,1234567890,-;"
    variants = (
        with_block([journal + "#012".join(block)], journal),
        with_block(indented, journal),
        with_block([record + "\\x0a".join(block), " SUBSYSTEM=mm"], record),
    )
    for data in variants:
        [incident] = parse([data])

        assert incident.vm_pages["free"] == 25_443
        assert incident.vm_pages["slab_unreclaimable"] == 28_454
        assert incident.ram_pages == 524_158
