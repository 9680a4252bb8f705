"""One measured run, from staging to a stored result.

Rule: raw material of every run is kept in the cache (events, console, the
guard's own records), because a strange result is worthless without it.
"""

from __future__ import annotations

import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from arena import digest, host, image, job, machine, prepared, programs
from arena.results import Result
from arena.stage import stage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from arena.guards import Guard
    from arena.scenario import Scenario

READY = b'"ev":"ready"'


def seed_of(scenario: str, number: int) -> int:
    """The seed of a run: the same for every guard, so that all meet the same names and sizes."""
    return zlib.crc32(f"{scenario}:{number}".encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Arena:
    """What all runs share: a guest, the programs, a place for raw material."""

    guest: image.Guest
    suite: str
    made: Mapping[str, Path]
    cache: Path
    lock: Path
    say: Callable[[str], None]

    @classmethod
    def open(cls, suite: str, cache: Path, lock: Path, say: Callable[[str], None]) -> Arena:
        """Make everything ready, building what is missing."""
        host.require(host.RUN_TOOLS)
        return cls(
            guest=image.ensure(suite, cache=cache, say=say),
            suite=suite,
            made=programs.ensure(cache),
            cache=cache,
            lock=lock,
            say=say,
        )

    def folder_of(self, scenario: str, guard: str, number: int) -> Path:
        """Where the raw material of a run lies."""
        return self.cache / "runs" / f"{self.suite}-{scenario}-{guard}-{number}"

    def run(self, scenario: Scenario, guard: Guard, number: int, seed: int | None = None) -> Result:
        """Run once, alone on the machine, and digest what came out."""
        seed = seed_of(scenario.name, number) if seed is None else seed
        staged = stage(scenario, guard, seed)
        folder = self.folder_of(scenario.name, guard.name, number)
        files: dict[str, bytes | str | Path] = {
            "main.sh": staged.script,
            "plan": staged.plan,
            **self.made,
        }
        with host.guest_lock(self.lock) as lock:
            # Under the lock: another arena may be about to do the same run.
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            job.write_job(folder / "job.tar", files)
            accelerator = machine.choose_accelerator(self.guest)
            guest = self.guest
            if guard.install:
                guest = prepared.ensure(guest, guard, lock=lock, say=self.say)
            outcome = machine.run(
                guest,
                staged.hardware,
                folder,
                on_output=_Watcher(staged.disks),
                accelerator=accelerator,
                lock=lock,
            )
            (folder / "job.tar").unlink()
            machine.unpack(outcome.files, folder / "files")
            outcome.files.unlink()
        events = digest.parse_events(outcome.out)
        run = digest.digest(events, guard, panic=outcome.panic)
        if "arena: start failed" in outcome.console:
            run = digest.without_guard(run)
        return Result(
            scenario=scenario.name,
            guard=guard.name,
            guest=self.suite,
            release=self.guest.release,
            number=number,
            seed=seed,
            run=run,
            other_cores=outcome.noise.other_cores,
            wall_s=outcome.noise.wall_s,
            accelerator=accelerator.partition(",")[0],
        )


class _Watcher:
    """Waits for the landscape to be ready, then gives the disks their speed."""

    def __init__(self, disks: Mapping[str, machine.Disk]) -> None:
        self._disks = disks
        self._seen = b""
        self._done = False

    def __call__(self, data: bytes, throttle: Callable[[Mapping[str, machine.Disk]], None]) -> None:
        if self._done:
            return
        self._seen = self._seen[-len(READY) :] + data
        if READY in self._seen:
            throttle(self._disks)
            self._done = True
