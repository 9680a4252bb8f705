"""The examples run, and do under pressure what they promise."""

import asyncio
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from forestall import PressureEvent

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def event_of(level, time_left_s=None):
    return PressureEvent(
        timestamp=0.0,
        pressure_level=level,
        memory_percent=90.0,
        swap_percent=0.0,
        available_bytes=1,
        total_bytes=10,
        top_processes=(),
        time_left_s=time_left_s,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["shrinking_cache.py", "--seconds", "0.1"],
        ["checkpoint.py", "STATE", "--seconds", "0.1"],
        ["shedding_server.py", "--port", "0", "--seconds", "0.1"],
    ],
)
def test_an_example_runs(arguments, tmp_path):
    name, *rest = [str(tmp_path / "state.json") if a == "STATE" else a for a in arguments]
    source = str(Path(__file__).parents[2] / "src")
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *rest],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": source},
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_cache_shrinks_with_the_level_and_grows_again():
    cache = load("shrinking_cache").ShrinkingCache(entries_max=100)
    sizes = []
    for level in ("normal", "medium", "critical", "normal"):
        cache.on_pressure(event_of(level))
        for number in range(100):
            cache.put(str(number), b"x")
        sizes.append(len(cache))

    assert sizes == [100, 25, 0, 100]


def test_the_script_saves_at_medium_stops_in_time_and_resumes(tmp_path):
    module = load("checkpoint")
    job = module.Job(tmp_path / "state.json")
    job.step()
    job.step()
    job.on_pressure(event_of("medium"))
    asked = job.save_now.is_set()
    job.save()
    job.on_pressure(event_of("critical", time_left_s=3.0))
    resumed = module.Job(tmp_path / "state.json")

    assert asked
    assert job.stop_now.is_set()
    assert (resumed.next_number, resumed.total) == (2, 1)


def test_the_server_turns_away_while_memory_is_short():
    module = load("shedding_server")

    async def ask(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        answer = await reader.read()
        writer.close()
        return answer.split(b"\r\n")[0]

    async def main():
        server = module.Server()
        listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        answers = []
        for level in ("normal", "critical", "low"):
            await server.on_pressure(event_of(level))
            answers.append(await ask(port))
        listener.close()
        return answers

    assert asyncio.run(main()) == [
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 503 Service Unavailable",
        b"HTTP/1.1 200 OK",
    ]
