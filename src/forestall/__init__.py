"""forestall: keeps a Linux machine usable when memory runs out.

Rule: importing this package imports nothing else. The guard runs without site
and without the heavy half of the standard library, and an eager import here
would be paid by it too. The library's names are fetched when they are used.
"""

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forestall.monitor import (
        PressureEvent,
        PressureMonitor,
        Process,
        alert_on_critical,
        clean_up,
        log_pressure,
        suggest,
    )

__all__ = (
    "PressureEvent",
    "PressureMonitor",
    "Process",
    "__version__",
    "alert_on_critical",
    "clean_up",
    "log_pressure",
    "suggest",
)


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'forestall' has no attribute {name!r}")
    from forestall import monitor  # noqa: PLC0415 - lazy is the point

    return getattr(monitor, name)


def __dir__() -> list[str]:
    return sorted(__all__)
