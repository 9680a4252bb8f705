"""The library's face: memory pressure for programs that want to act before they are killed.

    from forestall import PressureMonitor

    with PressureMonitor(handlers=[shed_caches]):
        serve_forever()

Works without root and without the guard; where a guard runs, its news comes at
once instead of at the next look. Rule: a handler that raises or hangs hurts
nobody, least of all the program it was meant to help.
"""

from __future__ import annotations

import queue
import threading
import time

from forestall.core.model import Level
from forestall.core.units import SECOND
from forestall.core.value import TYPE_CHECKING
from forestall.kernel import clock
from forestall.kernel.errors import KernelError
from forestall.library.event import PressureEvent, Process, Victim
from forestall.library.handlers import alert_on_critical, clean_up, log_pressure, suggest
from forestall.library.levels import rules_for
from forestall.library.reader import Reader
from forestall.library.stream import KILLS, WARNINGS, GuardStream, rank
from forestall.library.workers import HandlerReport, Worker, await_end, put_newest

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
    from types import TracebackType
    from typing import Any

    from forestall.library.workers import Handler

__all__ = (
    "HandlerReport",
    "PressureEvent",
    "PressureMonitor",
    "Process",
    "Victim",
    "alert_on_critical",
    "clean_up",
    "log_pressure",
    "suggest",
)

INTERVAL_S = 5.0
QUEUE_MAX = 256
NEWS_MAX = 64
STOP_PATIENCE_S = 2.0
WATCHFUL_S = {Level.NORMAL: INTERVAL_S, Level.LOW: 0.5, Level.MEDIUM: 0.5, Level.CRITICAL: 0.25}
"""Longest sleep by level; a look is 30 µs, and what is short is gone in seconds."""
FALLING_S = 0.1
SOON_NS = 60 * SECOND


class PressureMonitor:
    """Watches memory and tells handlers, a queue, and whoever listens.

    An event comes when the level changes, again every ``interval`` while it is
    critical, and with each warning of a guard and each kill it tells of. Levels have
    some hysteresis, so memory that hovers at a threshold does not flood.

    Args:
        thresholds: Percent of memory used at which ``low``, ``medium`` and ``critical`` begin;
            absent: 70, 85 and 95, and not while tens of gigabytes are left.
        interval: Seconds between looks in calm, and between surveys of the processes; the
            monitor looks more often by itself when memory is short or falls fast.
        handlers: Functions, or coroutine functions under ``async with``; each has its own thread.
        use_guard: Listen to the guard, if one runs.
        socket: Where the guard listens; absent: the machine's, else the user's own.
        root: Where /proc and /sys are; another one in tests.

    Raises: ValueError for thresholds that make no sense; OSError or KernelError where
        memory cannot be read.
    """

    def __init__(
        self,
        *,
        thresholds: Mapping[str, float] | None = None,
        interval: float = INTERVAL_S,
        handlers: Iterable[Handler] = (),
        use_guard: bool = True,
        socket: str | None = None,
        root: str = "/",
    ) -> None:
        if interval <= 0:
            raise ValueError("interval is in seconds, above 0")
        self._rules = rules_for(thresholds)
        self._interval_s = interval
        self._handlers = list(handlers)
        self._root = root
        self._reader: Reader | None = Reader(self._rules, root)
        self._reading = threading.Lock()
        self._stream = GuardStream(socket, self._hear) if use_guard else None
        self._news: queue.Queue[dict[str, Any]] = queue.Queue(NEWS_MAX)
        self._workers: list[Worker] = []
        self._feeds: list[_Feed] = []
        self._first_feed: _Feed | None = None
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told_level = Level.NORMAL
        self._told_ns: int | None = None
        self._surveyed_ns: int | None = None
        self.event_queue: queue.Queue[PressureEvent] = queue.Queue(QUEUE_MAX)
        """Every event; the oldest go when nobody takes them."""
        self.missed = 0
        """Looks that failed; the monitor goes on."""
        self.dropped = 0
        """Events that nobody took out of ``event_queue``, and news that came too fast."""
        self.errors: list[str] = []
        """What handlers raised lately, newest last; at most 20."""

    # What a program asks.

    def current(self) -> PressureEvent:
        """Read memory and processes now; works whether or not the monitor runs.

        Raises: OSError or KernelError where memory cannot be read.
        """
        with self._reading:
            reader = self._open()
            now_ns = clock.now_ns()
            reader.look(now_ns)
            reader.survey(now_ns)
            return reader.event(now_ns, clock.wall_ns(), reason="asked")

    def add_handler(self, handler: Handler) -> None:
        """Call this with every event from now on.

        Raises: TypeError for a coroutine function while the monitor runs without asyncio.
        """
        self._handlers.append(handler)
        if self._thread is not None:
            self._hire(handler)

    def handler_reports(self) -> list[HandlerReport]:
        """Say how each handler is doing: delivered, failed, dropped, at work for how long."""
        return [worker.report() for worker in self._workers]

    @property
    def running(self) -> bool:
        """Whether it watches."""
        return self._thread is not None and not self._stopped.is_set()

    @property
    def guarded(self) -> bool:
        """Whether a guard's news is being heard."""
        return self._stream is not None and self._stream.connected

    # Threads.

    def start(self) -> PressureMonitor:
        """Watch in a thread; a second call does nothing.

        Raises: RuntimeError after stop(): make another monitor.
        """
        if self._stopped.is_set():
            raise RuntimeError("this monitor was stopped; make another one")
        if self._thread is None:
            for handler in self._handlers:
                self._hire(handler)
            if self._stream is not None:
                self._stream.start()
            self._thread = threading.Thread(target=self._run, name="forestall", daemon=True)
            self._thread.start()
        return self

    def stop(self) -> None:
        """Stop watching; waits two seconds at most, whatever the handlers do."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        self._hear({})
        if self._stream is not None:
            self._stream.stop()
        until = time.monotonic() + STOP_PATIENCE_S
        if self._thread is not None and self._thread is not threading.current_thread():
            await_end(self._thread, STOP_PATIENCE_S)
        for worker in self._workers:
            worker.stop()
        for worker in self._workers:
            worker.join(until - time.monotonic())
        for feed in list(self._feeds):
            feed.close()
        with self._reading:
            if self._reader is not None:
                self._reader.close()
                self._reader = None

    def run(self, duration: float | None = None) -> None:
        """Watch in the foreground until stop() is called, or for so many seconds."""
        self.start()
        try:
            self._stopped.wait(duration)
        finally:
            self.stop()

    def __enter__(self) -> PressureMonitor:
        return self.start()

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.stop()

    def listen(self) -> Iterator[PressureEvent]:
        """Yield events out of ``event_queue`` until the monitor is stopped."""
        while True:
            try:
                yield self.event_queue.get(timeout=0.2)
            except queue.Empty:
                if self._stopped.is_set():
                    return

    # asyncio.

    async def __aenter__(self) -> PressureMonitor:
        import asyncio  # noqa: PLC0415 - dear, and only those who use it should pay

        self._loop = asyncio.get_running_loop()
        # Before the first look, which may find memory short already: it must not get lost.
        self._first_feed = self._feed()
        return self.start()

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        import asyncio  # noqa: PLC0415 - as above

        # In a thread: a coroutine handler may need the loop to come to its end.
        await asyncio.to_thread(self.stop)

    def events(self) -> AsyncIterator[PressureEvent]:
        """Yield events until the monitor is stopped; for ``async for``.

        Those since ``async with`` for the first who asks, for others those from now on; of
        events that nobody takes the newest 256 are kept.
        """
        feed, self._first_feed = self._first_feed or self._feed(), None
        if self._stopped.is_set():
            feed.close()
        return self._drain(feed)

    def _feed(self) -> _Feed:
        import asyncio  # noqa: PLC0415 - as above

        feed = _Feed(asyncio.get_running_loop(), asyncio.Queue(QUEUE_MAX))
        self._feeds.append(feed)
        return feed

    async def _drain(self, feed: _Feed) -> AsyncIterator[PressureEvent]:
        try:
            while (event := await feed.waiting.get()) is not None:
                yield event
        finally:
            self._feeds.remove(feed)

    # The thread.

    def _run(self) -> None:
        while not self._stopped.is_set():
            pause_s = self._interval_s
            news = self._take_news()
            try:
                event, pause_s = self._turn(news, clock.now_ns())
            except (OSError, KernelError):
                # Blind for a moment, short of descriptors perhaps: the next look may be luckier.
                self.missed += 1
                event = None
            if event is not None:
                self._tell(event)
            self._wait(pause_s)

    def _turn(self, news: dict[str, Any], now_ns: int) -> tuple[PressureEvent | None, float]:
        """Look once; the event, if this moment is one, and how long to wait for the next look."""
        with self._reading:
            reader = self._open()
            level = reader.look(now_ns)
            reason = self._reason(level, news, now_ns)
            if reason or self._survey_due(now_ns):
                reader.survey(now_ns)
                self._surveyed_ns = now_ns
            left_ns = reader.time_left_ns(now_ns)
            # Under a limit of our own the guard speaks of another whole than we do.
            theirs = news if not reader.limit else {}
            if reason and not reader.limit and not theirs.get("pid") and self._stream is not None:
                theirs = {**theirs, **self._stream.next_to_go()}
            event = None
            if reason:
                event = reader.event(now_ns, clock.wall_ns(), reason=reason, news=theirs)
                self._told_level, self._told_ns = level, now_ns
        return event, self._pause_s(level, left_ns)

    def _reason(self, level: Level, news: Mapping[str, Any], now_ns: int) -> str:
        if level is not self._told_level:
            return "level"
        due = self._told_ns is None or now_ns - self._told_ns >= self._interval_s * SECOND
        if level is Level.CRITICAL and due:
            return "critical"
        what = news.get("what")
        if what in KILLS:
            return "kill"
        return "warning" if what in WARNINGS else ""

    def _survey_due(self, now_ns: int) -> bool:
        last_ns = self._surveyed_ns
        return last_ns is None or now_ns - last_ns >= self._interval_s * SECOND

    def _pause_s(self, level: Level, left_ns: int | None) -> float:
        pause_s = min(self._interval_s, WATCHFUL_S[level])
        if level is Level.NORMAL:
            pause_s = self._interval_s
        if left_ns is not None and left_ns < SOON_NS:
            pause_s = min(pause_s, FALLING_S)
        return pause_s

    def _open(self) -> Reader:
        if self._reader is None:
            self._reader = Reader(self._rules, self._root)
        return self._reader

    def _hear(self, event: dict[str, Any]) -> None:
        self.dropped += put_newest(self._news, event)

    def _wait(self, pause_s: float) -> None:
        # Peeking is not offered, so what ends the wait is put back for the next turn.
        try:
            self._hear(self._news.get(timeout=pause_s))
        except queue.Empty:
            pass

    def _take_news(self) -> dict[str, Any]:
        """Take all that came, and keep what says most: a kill, a warning, else the last."""
        best: dict[str, Any] = {}
        while True:
            try:
                news = self._news.get_nowait()
            except queue.Empty:
                return best
            if news and rank(news) >= rank(best):
                best = news

    def _tell(self, event: PressureEvent) -> None:
        self.dropped += put_newest(self.event_queue, event)
        for feed in list(self._feeds):
            feed.offer(event)
        for worker in list(self._workers):
            worker.offer(event)

    def _hire(self, handler: Handler) -> None:
        worker = Worker(handler, loop=self._loop, on_error=self._handler_failed)
        self._workers.append(worker)
        worker.start()

    def _handler_failed(self, name: str, error: BaseException) -> None:
        import logging  # noqa: PLC0415 - only for programs whose handlers fail

        self.errors[:] = [*self.errors[-19:], f"{name}: {type(error).__name__}: {error}"]
        # The program's own logging says where this goes; it is the program's own mistake.
        logging.getLogger("forestall").warning("handler %s failed", name, exc_info=error)


class _Feed:
    """Events across the border between our thread and somebody's loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, waiting: asyncio.Queue[PressureEvent | None]
    ) -> None:
        self._loop = loop
        self.waiting = waiting

    def offer(self, event: PressureEvent | None) -> None:
        """Hand an event over to the loop; never waits."""
        try:
            self._loop.call_soon_threadsafe(self._put, event)
        except RuntimeError:
            pass  # the loop is closed, and nobody listens any more

    def close(self) -> None:
        """Say that nothing more will come."""
        self.offer(None)

    def _put(self, event: PressureEvent | None) -> None:
        if self.waiting.full():
            self.waiting.get_nowait()
        self.waiting.put_nowait(event)
