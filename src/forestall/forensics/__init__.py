"""Lines in, incidents and causes out: out-of-memory reports of kernels and of userspace killers.

Pure: it opens nothing. Whoever calls passes the bytes of a log, and gets values.
"""

from __future__ import annotations

from forestall.forensics.model import Incident, Victim
from forestall.forensics.scan import Scanner, parse

__all__ = ["Incident", "Scanner", "Victim", "parse"]
