"""Handlers, each in a thread of its own: one that raises or hangs hurts nobody.

What a handler cannot take in time is dropped, oldest first, and counted.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time

from forestall.core.value import TYPE_CHECKING, value

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable
    from concurrent.futures import Future
    from typing import Any

    from forestall.library.event import PressureEvent

    Handler = Callable[[PressureEvent], object] | Callable[[PressureEvent], Awaitable[object]]

WAITING_MAX = 32
_CO_COROUTINE = 0x80
"""Source: inspect.CO_COROUTINE; inspect itself takes longer to import than all of us."""


@value
class HandlerReport:
    """How a handler is doing."""

    name: str
    delivered: int
    failed: int
    dropped: int
    busy_s: float | None
    """How long it has been at work on one event; None while it is idle."""
    last_error: str


def is_coroutine_function(handler: object) -> bool:
    """Tell whether calling it makes a coroutine: functions, methods, partials, objects."""
    while hasattr(handler, "func") and hasattr(handler, "keywords"):
        handler = handler.func  # functools.partial
    for one in (handler, type(handler).__call__):
        code = getattr(getattr(one, "__func__", one), "__code__", None)
        if code is not None:
            return bool(code.co_flags & _CO_COROUTINE)
    return False


def put_newest(waiting: queue.Queue[Any], item: object) -> int:
    """Put an item into a bounded queue, dropping the oldest when it is full.

    Returns: How many were dropped.
    """
    dropped = 0
    while True:
        try:
            waiting.put_nowait(item)
        except queue.Full:
            try:
                waiting.get_nowait()
                dropped += 1
            except queue.Empty:
                continue  # somebody took it meanwhile: there is room now
        else:
            return dropped


class Worker:
    """Calls one handler with one event after another.

    Args:
        handler: A function, or a coroutine function when there is a loop.
        loop: Where coroutines run; None outside of asyncio.
        on_error: Told what a handler raised.

    Raises: TypeError for a coroutine function without a loop.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        loop: asyncio.AbstractEventLoop | None,
        on_error: Callable[[str, BaseException], None],
    ) -> None:
        self.name = getattr(handler, "__qualname__", None) or type(handler).__name__
        self._asynchronous = is_coroutine_function(handler)
        if self._asynchronous and loop is None:
            raise TypeError(f"{self.name} is a coroutine function: use 'async with'")
        self._handler = handler
        self._loop = loop
        self._on_error = on_error
        self._waiting: queue.Queue[PressureEvent | None] = queue.Queue(WAITING_MAX)
        self._future: Future[Any] | None = None
        self._began: float | None = None
        self._delivered = 0
        self._failed = 0
        self._dropped = 0
        self._last_error = ""
        self._thread = threading.Thread(
            target=self._run, name=f"forestall-{self.name}"[:60], daemon=True
        )

    def start(self) -> None:
        """Begin to wait for events."""
        self._thread.start()

    def offer(self, event: PressureEvent) -> None:
        """Hand over an event; never waits."""
        self._dropped += put_newest(self._waiting, event)

    def stop(self) -> None:
        """Ask it to end after what it is doing; does not wait."""
        put_newest(self._waiting, None)

    def join(self, timeout_s: float) -> bool:
        """Wait for its end; False when it hangs, and then it is left alone."""
        if threading.current_thread() is self._thread:
            return True
        await_end(self._thread, max(0.0, timeout_s))
        if self._thread.is_alive() and self._future is not None:
            self._future.cancel()
            await_end(self._thread, 0.1)
        return not self._thread.is_alive()

    def report(self) -> HandlerReport:
        """Say how it is doing."""
        began = self._began
        return HandlerReport(
            name=self.name,
            delivered=self._delivered,
            failed=self._failed,
            dropped=self._dropped,
            busy_s=None if began is None else time.monotonic() - began,
            last_error=self._last_error,
        )

    def _run(self) -> None:
        while (event := self._waiting.get()) is not None:
            self._began = time.monotonic()
            try:
                self._call(event)
                self._delivered += 1
            except BaseException as error:  # noqa: BLE001 - a stranger's code; even SystemExit stays here
                self._failed += 1
                self._last_error = f"{type(error).__name__}: {error}"
                self._on_error(self.name, error)
            finally:
                self._began = None

    def _call(self, event: PressureEvent) -> None:
        if not self._asynchronous:
            self._handler(event)
            return
        import asyncio  # noqa: PLC0415 - dear, and here it was imported by the program already

        assert self._loop is not None
        coroutine: Any = self._handler(event)
        self._future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            self._future.result()
        finally:
            self._future = None


def await_end(thread: threading.Thread, timeout_s: float) -> None:
    """Join a thread; one that Ctrl-C kept from starting has nothing to be waited for."""
    with contextlib.suppress(RuntimeError):
        thread.join(timeout_s)
