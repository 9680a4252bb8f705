"""Turn a scenario, a guard and a seed into a job: plan, script, files.

Rule: pure; the same seed stages the same run.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from arena import machine
from arena.cast import CASTS, CHILDREN, Program

if TYPE_CHECKING:
    from arena.guards import Guard
    from arena.scenario import Actor, Scenario, Swap

VARIATION = 0.125
RUN_OVERHEAD_S = 110
"""What a run takes besides its limit: boot, settling, collecting, on a loaded host."""

ACTOR_HOME = Path("/usr/local/bin")
_CHILDREN = re.compile(r"\bchildren=(\d+)")
_VARYING = re.compile(r"=~(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """A run ready to be booted."""

    plan: str
    script: str
    hardware: machine.Machine
    disks: dict[str, machine.Disk]
    """Speeds to set when the landscape is ready: booting stays fast."""

    programs: dict[str, str]
    """Role to the program name it was given."""


def _settlers(scenario: Scenario) -> int:
    """Count the processes that hold memory before trouble starts, and say so."""
    scripts = [actor.script for actor in scenario.landscape if actor.script]
    children = [int(count) for script in scripts for count in _CHILDREN.findall(script)]
    return len(scripts) + sum(children)


def _vary(script: str, dice: random.Random) -> str:
    def one(found: re.Match[str]) -> str:
        return f"={round(int(found.group(1)) * dice.uniform(1 - VARIATION, 1 + VARIATION))}"

    return _VARYING.sub(one, script)


def _draw(actor: Actor, dice: random.Random, taken: set[str]) -> Program:
    free = [program for program in CASTS[actor.cast] if program.name not in taken]
    program = dice.choice(free or list(CASTS[actor.cast]))
    taken.add(program.name)
    return program


def stage(scenario: Scenario, guard: Guard, seed: int) -> Staged:
    """Draw names and sizes, and write everything down for the guest."""
    dice = random.Random(seed)
    lines = [
        f"set\tsettle_s\t{scenario.settle_s}",
        f"set\tsettlers\t{_settlers(scenario)}",
        f"set\tafter_s\t{scenario.after_s}",
        f"set\tlimit_s\t{scenario.limit_s}",
        f"set\tend_roles\t{','.join(scenario.awaited)}",
    ]
    if guard.group:
        lines.append(f"set\tguard_group\t{guard.group}")
    if scenario.thaw_s is not None:
        lines += ["set\tfreeze\t/mnt/share", f"set\tthaw_s\t{scenario.thaw_s}"]
    lines += [f"map\t{name}\t{role}" for name, role in scenario.programs.items()]
    taken: set[str] = set()
    programs: dict[str, str] = {}
    exes: set[str] = set()
    for actor in (*scenario.landscape, *scenario.trouble):
        program = _draw(actor, dice, taken)
        programs[actor.role] = program.name
        group = actor.group.format(program=program.name, number=dice.randrange(1000, 9999))
        if actor.limits:
            lines.append(f"group\t{group}\t{';'.join(actor.limits)}")
        if actor.script:
            exes.add(program.exe)
        words = (
            *("actor", actor.when, round(actor.delay_s * 1000), actor.role, actor.uid),
            *(actor.oom_score_adj, group, program.exe, program.arguments),
            _vary(actor.script, dice) or "-",
        )
        lines.append("\t".join(str(word) for word in words))
    exes |= {
        child.exe
        for child in CHILDREN
        if any(child.exe in actor.script for actor in (*scenario.landscape, *scenario.trouble))
    }
    return Staged(
        plan="\n".join(lines) + "\n",
        script=_script(scenario, guard, sorted(exes)),
        hardware=_hardware(scenario, guard),
        disks=_disks(scenario),
        programs=programs,
    )


def _disks(scenario: Scenario) -> dict[str, machine.Disk]:
    disks = {"root": machine.DISKS[scenario.root_disk]}
    if scenario.swap and scenario.swap.kind == "disk":
        disks["swap"] = machine.DISKS[scenario.swap.disk]
    return disks


def _hardware(scenario: Scenario, guard: Guard) -> machine.Machine:
    # Debian's drop-ins for systemd-oomd pull it in with the first user session:
    # whoever is measured beside it would be helped by it.
    masked = [] if guard.name == "systemd-oomd" else ["systemd-oomd.service", "systemd-oomd.socket"]
    return machine.Machine(
        measured=True,
        memory_mib=scenario.memory_mib,
        swap_mib=scenario.swap.mib if scenario.swap and scenario.swap.kind == "disk" else 0,
        kernel_words=" ".join(f"systemd.mask={unit}" for unit in masked),
        timeout_s=scenario.limit_s + scenario.after_s + RUN_OVERHEAD_S,
    )


def _swap_lines(swap: Swap | None) -> list[str]:
    if swap is None:
        return []
    if swap.kind == "disk":
        return ["mkswap -q /dev/vdc", "swapon /dev/vdc"]
    return [
        "modprobe zram",
        "echo lzo-rle > /sys/block/zram0/comp_algorithm",
        f"echo {swap.mib}M > /sys/block/zram0/disksize",
        "mkswap -q /dev/zram0",
        "swapon /dev/zram0",
    ]


def _guard_lines(guard: Guard) -> list[str]:
    lines = []
    if guard.unit:
        lines += [
            f"systemctl start {' '.join(guard.units)} || echo 'arena: start failed'",
            "for i in 1 2 3 4 5 6 7 8 9; do",
            f"    systemctl -q is-active {guard.unit} && break; sleep 1",
            "done",
        ]
    return [*lines, f"sleep {guard.wait_s}"]


def _script(scenario: Scenario, guard: Guard, exes: list[str]) -> str:
    session = "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service"
    lines = [
        *(f"ln -f actor {exe}" for exe in exes),
        *_swap_lines(scenario.swap),
        "mkdir -p /mnt/share && mount /dev/vdd /mnt/share",
        "mount -o remount,size=100% /dev/shm",
        "systemctl start user@1000.service",
        # The stand-in session manager makes room for groups below it, as the real one does.
        f"mkdir -p {session}/init.scope",
        f"for pid in $(cat {session}/cgroup.procs); do",
        f"    echo $pid > {session}/init.scope/cgroup.procs",
        "done",
        scenario.setup,
        *_guard_lines(guard),
        f"./monitor plan {machine.OUT_PORT}",
        *_collect_lines(guard),
        "echo done > " + machine.STATUS_PORT,
        "echo o > /proc/sysrq-trigger",
        "sleep 60",
    ]
    return "\n".join(line for line in lines if line) + "\n"


def _collect_lines(guard: Guard) -> list[str]:
    if not guard.unit:
        return []
    return [
        # Stopping flushes what a guard keeps in memory; the measuring is over.
        *([f"timeout 10 systemctl stop {guard.unit}"] if guard.records else []),
        "mkdir -p take",
        f"timeout 15 journalctl -b -u {guard.unit} -o short-monotonic --no-pager"
        " > take/journal.txt",
        *([f"timeout 15 cp {guard.records} take/"] if guard.records else []),
        f"timeout 15 tar -cf {machine.FILES_PORT} -C take .",
    ]
