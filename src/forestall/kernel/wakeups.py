"""What ends a sleep: descriptors, signals, time. Rule: one poll, no threads, no timers.

The timeout of poll is the adaptive tick. Signals arrive as bytes in a pipe, so
that none is lost between two polls and no Python code runs inside a handler.
"""

from __future__ import annotations

import os
import select
import signal

from forestall.core.value import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable
    from types import FrameType

NS_PER_MS = 1_000_000

SIGNALS_MAX = 512
"""Bytes taken out of the pipe at once; the rest wakes the next poll."""

READ = select.POLLIN
URGENT = select.POLLPRI
BROKEN = select.POLLERR | select.POLLHUP | select.POLLNVAL


class Wakeups:
    """The one place where the guard waits."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._tokens: dict[int, Hashable] = {}
        self._pipe: tuple[int, int] | None = None

    def add(self, fd: int, mask: int, token: Hashable) -> None:
        """Watch a descriptor; watching it again replaces mask and token."""
        self._poll.register(fd, mask)
        self._tokens[fd] = token

    def remove(self, fd: int) -> None:
        """Stop watching; a descriptor that is not watched is none's concern."""
        if self._tokens.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def wait(self, timeout_ns: int | None) -> list[tuple[Hashable, int]]:
        """Sleep until a descriptor is ready or the time is over.

        Args:
            timeout_ns: Rounded up to whole milliseconds, so that a sleep never ends early;
                zero or less looks without sleeping; None waits for ever.

        Returns: Token and events of each ready descriptor. A signal interrupts nothing: it
        shows as the token given to ``watch_signals``.
        """
        if timeout_ns is None:
            ready = self._poll.poll()
        else:
            ready = self._poll.poll(-(-timeout_ns // NS_PER_MS) if timeout_ns > 0 else 0)
        if not ready:
            return []
        tokens = self._tokens
        return [(tokens[fd], events) for fd, events in ready if fd in tokens]

    def watch_signals(self, signals: Iterable[int], token: Hashable) -> None:
        """Turn signals into wake-ups; only in the main thread, once.

        Race: the pipe is set before the handlers, so no signal finds a handler without a pipe;
        a signal before that is the default's, as it was until now.
        """
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._pipe = (reader, writer)
        # A full pipe means that we are awake anyway.
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in signals:
            signal.signal(number, _note)
        self.add(reader, READ, token)

    def signals(self) -> tuple[int, ...]:
        """Take the signals that have arrived, oldest first."""
        if self._pipe is None:
            return ()
        try:
            return tuple(os.read(self._pipe[0], SIGNALS_MAX))
        except BlockingIOError:
            return ()

    def close(self) -> None:
        """Stop watching signals; the handlers stay and do nothing."""
        if self._pipe is not None:
            signal.set_wakeup_fd(-1)
            for fd in self._pipe:
                self.remove(fd)
                os.close(fd)
            self._pipe = None


def _note(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: the byte in the pipe says it all."""


def pause_ms(milliseconds: int) -> None:
    """Sleep, whatever becomes ready meanwhile."""
    select.poll().poll(milliseconds)
