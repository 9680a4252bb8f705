"""Errors of the kernel readers.

ForestallError
└── KernelError
    ├── KernelFormatError   text that is not what the kernel's documentation promises
    └── ProcessGone         nobody has this PID any more
"""

from __future__ import annotations

from forestall.core.errors import ForestallError

EXCERPT_BYTES = 80


class KernelError(ForestallError):
    """The kernel surprised us."""


class KernelFormatError(KernelError):
    """A kernel file does not read as documented.

    The excerpt is a ``repr``: kernel text carries process names, and those are hostile.
    """

    def __init__(self, file: str, what: str, raw: bytes = b"") -> None:
        excerpt = raw[:EXCERPT_BYTES]
        super().__init__(f"{file}: {what}" + (f" in {excerpt!r}" if excerpt else ""))
        self.file = file
        self.what = what
        self.excerpt = excerpt


class ProcessGone(KernelError):
    """Nobody has this PID any more; routine, and to be expected between any two reads."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"process {pid} is gone")
        self.pid = pid
