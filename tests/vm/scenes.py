"""Runs a probe in a guest and hands back its scenes: one line of JSON each."""

import json
from pathlib import Path

from arena import shell

HERE = Path(__file__).parent


def play(probe, **hardware):
    """Run ``probe`` with the project at hand; returns what each scene told, by its name."""
    said = []
    request = shell.Request(
        command=f"python3 /run/put/{probe}", put=(HERE / probe,), source=True, **hardware
    )
    status = shell.run(request, write=said.append)
    output = b"".join(said).decode()
    told = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    scenes = {one["scene"]: one for one in told}

    assert status == 0, output
    assert "done" in scenes, output
    assert "broken" not in scenes, output
    return scenes
