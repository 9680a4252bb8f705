"""Secrets: from systemd's credentials or from a file that nobody else may read.

Rule: a secret is read when it is used, and is in no message, argument or environment.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from forestall.herald.errors import SecretError

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "forestall."
"""A secret ``slack`` is the credential ``forestall.slack``."""
STORES = ("/etc/credstore", "/run/credstore")
"""Where systemd finds credentials; only root can, so only root looks there itself."""
SECRET_BYTES_MAX = 8192


def read_secret(
    name: str, environment: Mapping[str, str], *, stores: tuple[str, ...] = STORES
) -> str:
    """Return the secret of a name or an absolute path: its first line.

    Raises: SecretError when it is missing, readable by others, or no text.
    """
    tried = []
    for path in _places(name, environment, stores):
        tried.append(str(path))
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise SecretError(f"the secret {path} cannot be read: {error.strerror}") from None
        with os.fdopen(fd, "rb") as file:
            _require_private(path, os.fstat(file.fileno()))
            return _text(path, file.read(SECRET_BYTES_MAX + 1))
    where = " or ".join(tried) or "a credential, for systemd gave us none"
    if not name.startswith("/") and environment.get("INVOCATION_ID"):
        where += f"; write it into {STORES[0]}/{PREFIX}{name} and run forestall install"
    raise SecretError(f"the secret {name} is missing: {where}")


def redact(text: str, *secrets: str) -> str:
    """Take secrets out of a text for people."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "…")
    return text


def _places(name: str, environment: Mapping[str, str], stores: tuple[str, ...]) -> list[Path]:
    if name.startswith("/"):
        return [Path(name)]
    folder = environment.get("CREDENTIALS_DIRECTORY")
    folders = [folder] if folder else list(stores)
    return [Path(folder) / f"{PREFIX}{name}" for folder in folders]


def _require_private(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise SecretError(f"the secret {path} is no file")
    if status.st_uid not in {0, os.geteuid()}:
        raise SecretError(f"the secret {path} belongs to uid {status.st_uid}, not to root or us")
    if status.st_mode & 0o027:
        raise SecretError(
            f"the secret {path} can be read or changed by others; chmod 0600 (0640 at most)"
        )


def _text(path: Path, raw: bytes) -> str:
    if len(raw) > SECRET_BYTES_MAX:
        raise SecretError(f"the secret {path} is larger than {SECRET_BYTES_MAX} bytes")
    try:
        line = raw.decode().split("\n", 1)[0].strip()
    except UnicodeDecodeError:
        raise SecretError(f"the secret {path} is no text") from None
    if not line or not line.isprintable():
        raise SecretError(f"the secret {path} is empty or not one line of text")
    return line
