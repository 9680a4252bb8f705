"""Finding the guard: the machine's, or one's own."""

from __future__ import annotations

import os

from forestall.config.launch import user_socket
from forestall.control.client import Client
from forestall.control.errors import Unreachable
from forestall.core.rules import Options


def connect(path: str | None = None, *, timeout_s: float = 5.0) -> Client:
    """Connect to the guard at a path; without one to the machine's, else to the user's own.

    Raises: Unreachable, about the machine's guard.
    """
    if path is not None:
        return Client(path, timeout_s=timeout_s)
    try:
        return Client(Options().socket_path, timeout_s=timeout_s)
    except Unreachable as error:
        own = user_socket(os.geteuid(), os.environ)
        if not os.path.exists(own):  # noqa: PTH110 - a socket's name, not a document
            raise
        try:
            return Client(own, timeout_s=timeout_s)
        except Unreachable:
            raise error from None
