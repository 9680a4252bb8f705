"""Relief's own loop: one request at a time, each with a bound.

Rule: relief may block; the guard never waits for it. It ends when the guard's
end of the socket closes, so it cannot outlive the guard.
"""

from __future__ import annotations

import errno
import os
import select
import socket

from forestall.core.events import READ_BACK
from forestall.core.units import MS
from forestall.core.value import TYPE_CHECKING
from forestall.kernel.clock import now_ns
from forestall.kernel.errors import KernelError
from forestall.relief.wire import receive, send

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from forestall.relief.read_back import ReadBack

REAP_AFTER_NS = 250 * MS
"""A victim that gets the processor is gone by itself within this (0.1 s for 2 GiB). To help it
sooner takes a processor from the bystanders at the very moment they wait for one: a service in
a guest of two processors stood still for 0.3 s."""
REAP_TRIES_MAX = 200
REAP_PAUSE_MS = 5
"""EAGAIN means the victim's mm is locked by somebody who will not hold it long."""
RECORD_NAME_BYTES_MAX = 100
_WORDS = {"write": "writing a record", "reap": "freeing a victim's memory"}
NOTE = "/run/forestall-recycling"
"""The same as ``relief.worker.NOTE``, which is not to be imported here."""


def _no_matter(*, urgent: bool) -> None:
    """Where nobody hurries."""
    del urgent


class Relief:
    """Answers the guard's requests.

    Args:
        end: Our end of the socket; blocking.
        mrelease: process_mrelease by pidfd; returns an errno, 0 for success.
        record_dir: Where records go; made if absent. Empty: records are dropped.
        record_bytes_max: The oldest records are removed beyond this.
        note: Where a recycling of swap is written down while it is under way.
        hurry: Called with ``urgent``: whether to go before everybody on the processors.
    """

    def __init__(
        self,
        end: socket.socket,
        *,
        mrelease: Callable[[int], int],
        record_dir: str,
        record_bytes_max: int,
        note: str = NOTE,
        hurry: Callable[..., object] = _no_matter,
    ) -> None:
        self._end = end
        self._mrelease = mrelease
        self._record_dir = record_dir
        self._record_bytes_max = record_bytes_max
        self._spoilt = ""
        """A record of which a piece is missing: it must not appear as if it were whole."""
        self._note = note
        self._hurry = hurry
        self._mended = ""
        self._errand: ReadBack | None = None
        self._cannot = ""

    def run(self) -> None:
        """Serve until the guard is gone."""
        # Now, in our own process, and not when reading it would wait for the disk.
        from forestall.relief import read_back  # noqa: F401, PLC0415

        while True:
            self._mend()
            if self._errand is not None and not self._asked(self._errand):
                if not self._go_on(self._errand):
                    return
                continue
            message, fd = receive(self._end)
            if message is None:
                return
            try:
                answer = self._do(message, fd)
            except (OSError, KernelError) as error:
                what = message.get("action") or _WORDS.get(str(message.get("op")), "a request")
                answer = {"op": "failed", "what": what, "why": str(error)}
            finally:
                if fd is not None:
                    os.close(fd)
            if answer is not None and not self._tell(answer):
                return

    def _asked(self, errand: ReadBack) -> bool:
        """Wait for a request as long as an errand that is under way can wait."""
        poll = select.poll()
        poll.register(self._end, select.POLLIN)
        return bool(poll.poll(errand.pause_ms))

    def _go_on(self, errand: ReadBack) -> bool:
        """Do a little of an errand; False when the guard is gone."""
        try:
            if errand.step():
                return True
            answer = errand.outcome()
        except (OSError, KernelError) as error:
            answer = {"op": "declined", "action": READ_BACK, "why": str(error)}
        self._errand = None
        errand.close()
        if answer is None or (answer["op"] == "declined" and answer["why"] == self._cannot):
            return True
        self._cannot = answer.get("why", "")  # What cannot be done is told once.
        return self._tell(answer)

    def _tell(self, answer: dict[str, Any]) -> bool:
        try:
            send(self._end, answer)
        except ConnectionError:
            return False
        return True

    def _do(self, message: dict[str, Any], fd: int | None) -> dict[str, Any] | None:
        match message.get("op"):
            case "reap" if fd is not None:
                return self._reap(fd, int(message.get("killed_ns", 0)))
            case "write":
                return self._write(str(message["name"]), message["data"], bool(message["last"]))
            case "relieve":
                return self._relieve(str(message["action"]))
            case other:
                return {"op": "failed", "what": str(other), "why": "unknown request"}

    def _relieve(self, action: str) -> dict[str, Any] | None:
        if action == READ_BACK:
            self._begin_errand()
            return None
        # Imported here, in relief's own process: the guard should not carry it.
        from forestall.relief.actions import describe, perform  # noqa: PLC0415
        from forestall.relief.tools import Tools  # noqa: PLC0415

        tools = Tools(interrupted=self._wanted)
        try:
            return describe(perform(action, tools=tools))
        finally:
            tools.close()

    def _begin_errand(self) -> None:
        from forestall.relief.read_back import ReadBack  # noqa: PLC0415 - as above

        if self._errand is not None:
            self._errand.close()
        own = frozenset((os.getpid(), os.getppid()))
        self._errand = ReadBack(now_ns=now_ns, own_pids=own)

    def _mend(self) -> None:
        """Switch swap on again that a service killed in the middle of recycling left off."""
        if not os.path.exists(self._note):
            return
        from forestall.relief import swap  # noqa: PLC0415 - as above
        from forestall.relief.tools import Tools  # noqa: PLC0415

        try:
            tools = Tools()
            try:
                done = swap.mend(tools)
            finally:
                tools.close()
        except (OSError, KernelError) as error:
            done = str(error)
        if done and done != self._mended:
            self._mended = done  # What cannot be mended is not told at every request.
            self._tell({"op": "declined", "action": swap.ACTION, "why": done})

    def _wanted(self) -> str:
        """Say that the guard wants something else, or is gone: both are more urgent."""
        poll = select.poll()
        poll.register(self._end, select.POLLIN)
        return "the guard needs relief for something more urgent" if poll.poll(0) else ""

    def _reap(self, pidfd: int, killed_ns: int) -> dict[str, Any]:
        """Free a dying victim's memory in our time, if it is starved of its own.

        Source: mm/oom_kill.c, process_mrelease (since Linux 5.15). ESRCH: already
        gone, which is success. EINVAL: not dying, or it shares its memory with a
        process that is not.
        Cost: 100 to 700 ms of our time per 2 GiB of 4 KiB pages.
        """
        began_ns = now_ns()
        if _gone_within(pidfd, killed_ns + REAP_AFTER_NS - began_ns):
            return {"op": "reaped", "errno": errno.ESRCH, "took_ns": now_ns() - began_ns}
        error = errno.EAGAIN
        tries = 0
        # Not to starve with the victim it helps to go.
        self._hurry(urgent=True)
        try:
            while error == errno.EAGAIN and tries < REAP_TRIES_MAX:
                error = self._mrelease(pidfd)
                tries += 1
                if error == errno.EAGAIN:
                    select.poll().poll(REAP_PAUSE_MS)
        finally:
            self._hurry(urgent=False)
        return {"op": "reaped", "errno": error, "took_ns": now_ns() - began_ns}

    def _write(self, name: str, data: bytes, last: bool) -> dict[str, Any] | None:  # noqa: FBT001
        if not self._record_dir or not _is_record_name(name):
            return None
        if name == self._spoilt:
            return None
        path = os.path.join(self._record_dir, name)
        try:
            self._append(path + ".part", data)
            if not last:
                return None
            os.rename(path + ".part", path)
        except OSError:
            self._spoilt = name
            _remove(path + ".part")
            raise
        self._make_room()
        return {"op": "written", "name": name}

    def _append(self, path: str, data: bytes) -> None:
        os.makedirs(self._record_dir, mode=0o750, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(path, flags, 0o640)
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(fd, left) :]
        finally:
            os.close(fd)

    def _make_room(self) -> None:
        records = []
        total_bytes = 0
        with os.scandir(self._record_dir) as entries:
            for entry in entries:
                if entry.name.startswith("episode-") and entry.is_file(follow_symlinks=False):
                    size_bytes = entry.stat(follow_symlinks=False).st_size
                    records.append((entry.name, entry.path, size_bytes))
                    total_bytes += size_bytes
        for _name, path, size_bytes in sorted(records)[:-1]:
            if total_bytes <= self._record_bytes_max:
                return
            os.unlink(path)
            total_bytes -= size_bytes


def _gone_within(pidfd: int, wait_ns: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(max(0, wait_ns // MS)))


def _is_record_name(name: str) -> bool:
    """Accept what names one file in our folder; the rest is dropped."""
    plain = name.isascii() and name.isprintable() and "/" not in name
    return plain and name[:1] not in {"", "."} and len(name) <= RECORD_NAME_BYTES_MAX


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # it was not made, or cannot be taken away: it does not look whole
