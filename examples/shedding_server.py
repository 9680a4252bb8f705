"""An asyncio server that turns new work away while memory is short.

python examples/shedding_server.py --port 8080 --seconds 60
curl -i localhost:8080
"""

from __future__ import annotations

import argparse
import asyncio

from forestall import PressureEvent, PressureMonitor

SHED_LEVELS = frozenset({"medium", "critical"})


class Server:
    """Answers 200, or 503 with Retry-After while memory is short."""

    def __init__(self) -> None:
        self.shedding = False
        self.answered = 0
        self.turned_away = 0

    async def on_pressure(self, event: PressureEvent) -> None:
        """Follow the level; runs in the server's own loop, so nothing needs a lock."""
        self.shedding = event.level in SHED_LEVELS

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        await reader.readline()
        if self.shedding:
            self.turned_away += 1
            head = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\n"
            body = b"memory is short\n"
        else:
            self.answered += 1
            head, body = b"HTTP/1.1 200 OK\r\n", b"hello\n"
        writer.write(head + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()


async def run(port: int, seconds: float) -> Server:
    """Serve for a while."""
    server = Server()
    async with PressureMonitor(handlers=[server.on_pressure]):
        listener = await asyncio.start_server(server.serve, "127.0.0.1", port)
        async with listener:
            await asyncio.sleep(seconds)
    return server


def main() -> None:
    """Serve, then say what happened."""
    parser = argparse.ArgumentParser(description="A server that sheds load under pressure.")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    server = asyncio.run(run(options.port, options.seconds))
    print(f"{server.answered} answered, {server.turned_away} turned away")


if __name__ == "__main__":
    main()
