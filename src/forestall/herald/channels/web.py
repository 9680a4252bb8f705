"""Channels that are an HTTP POST: Slack, Discord, Teams, ntfy, webhooks."""

from __future__ import annotations

import http.client
import json
import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from forestall import __version__
from forestall.core.units import SECOND
from forestall.herald.event import clean
from forestall.herald.outcome import Later, Never, Outcome, Sent, retry_after_ns
from forestall.herald.secret import redact

if TYPE_CHECKING:
    from collections.abc import Mapping

ANSWER_BYTES_MAX = 2000
_FINAL = frozenset({400, 405, 410, 411, 413, 414, 415, 422})
"""The letter itself is not wanted. 401, 403, 404 are not here: an address can be mended."""


def post(
    url: str,
    body: Mapping[str, Any],
    *,
    timeout_ns: int,
    token: str = "",
) -> Outcome:
    """Send a JSON body; redirects are not followed, a certificate is always checked.

    Args:
        token: Goes into an Authorization header.
    """
    headers = {"Content-Type": "application/json", "User-Agent": f"forestall/{__version__}"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    hidden = (*_secret_parts(url), token)
    try:
        status, retry_after, answer = _exchange(url, json.dumps(body), headers, timeout_ns)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = clean(str(error)) or type(error).__name__
        return Later(redact(f"not reached: {reason}", *hidden))
    if 200 <= status < 300:
        return Sent()
    why = redact(f"HTTP {status}: {clean(answer, 100)}".rstrip(": "), *hidden)
    if status in _FINAL:
        return Never(why)
    return Later(why, retry_after_ns(retry_after))


def _secret_parts(url: str) -> tuple[str, ...]:
    """Return what a server might quote of an address: all of it, or a piece of its path."""
    pieces = url.replace("?", "/").replace("=", "/").replace("&", "/").split("/")[3:]
    return (url, *(piece for piece in pieces if len(piece) >= 8))


def _exchange(
    url: str, body: str, headers: dict[str, str], timeout_ns: int
) -> tuple[int, str | None, str]:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("the address is no http:// or https:// URL")
    timeout_s = timeout_ns / SECOND
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(
            parts.hostname, parts.port, timeout=timeout_s, context=ssl.create_default_context()
        )
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("POST", path, body.encode(), headers)
        answer = connection.getresponse()
        text = answer.read(ANSWER_BYTES_MAX).decode("utf-8", "replace")
        return answer.status, answer.getheader("Retry-After"), text
    finally:
        connection.close()
