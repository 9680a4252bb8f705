"""Where the real logs are, if they are: beside the project, never in it."""

from __future__ import annotations

import os
from pathlib import Path

_HERE = Path(__file__).resolve().parents[2]
_PLACES = [_HERE.parent / "shared", _HERE.parent.parent / "shared"]
if "FORESTALL_SHARED" in os.environ:
    _PLACES.insert(0, Path(os.environ["FORESTALL_SHARED"]))

LOGS = next((p / "data" / "oom-logs" for p in _PLACES if (p / "data" / "oom-logs").is_dir()), None)
NAMES = sorted(path.stem for path in LOGS.glob("*.log")) if LOGS else []


def read_log(name: str) -> bytes:
    """Read one of them."""
    assert LOGS is not None
    return (LOGS / f"{name}.log").read_bytes()
