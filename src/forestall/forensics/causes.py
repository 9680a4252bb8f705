"""The four families of causes and their twelve members, as the project's seeds name them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from forestall.forensics.model import Evidence


class Family(Enum):
    """What kind of trouble it is."""

    LEAK = "leak"
    SETTING = "wrong setting"
    LIMIT = "system limit"
    LOAD = "load"


class Cause(Enum):
    """What in that family; the value is (family, name)."""

    APPLICATION = (Family.LEAK, "application")
    LIBRARY = (Family.LEAK, "library")
    GARBAGE_COLLECTION = (Family.LEAK, "garbage collection")
    BUFFERS = (Family.SETTING, "buffers")
    CACHES = (Family.SETTING, "caches")
    NO_LIMIT = (Family.SETTING, "no limit")
    HARDWARE = (Family.LIMIT, "hardware")
    KERNEL_MEMORY = (Family.LIMIT, "kernel memory")
    FRAGMENTATION = (Family.LIMIT, "fragmentation")
    TRAFFIC = (Family.LOAD, "traffic")
    LARGE_DATA = (Family.LOAD, "large data")
    CONCURRENCY = (Family.LOAD, "concurrency")

    @property
    def family(self) -> Family:
        """The family it belongs to."""
        return self.value[0]

    @property
    def title(self) -> str:
        """Its name."""
        return self.value[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One statement about an incident, with what it rests on and what to do next."""

    rule: str
    cause: Cause
    sentence: str
    confidence: float
    """0.0 to 1.0: how often the log's evidence alone would be right."""
    advice: str
    command: str
    evidence: tuple[Evidence, ...] = ()
