"""Everything else, by apprise; optional, imported when first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from forestall.herald.event import ERROR, WARNING
from forestall.herald.outcome import Later, Never, Outcome, Sent

if TYPE_CHECKING:
    from forestall.herald.letter import Letter


def send(letter: Letter, *, url: str, title: str, body: str) -> Outcome:
    """Send by the service that an apprise URL names; plain text, so markup means nothing."""
    try:
        apprise = import_module("apprise")  # 19 MiB, for those who use it
    except ImportError:
        return Later("apprise is not installed: pip install 'forestall[alerts]'")
    # Its log holds addresses, and addresses hold secrets.
    import logging  # noqa: PLC0415 - see above

    logging.getLogger("apprise").disabled = True
    service = apprise.Apprise()
    if not service.add(url):
        return Never("apprise does not understand the address in the secret")
    kind = {ERROR: "failure", WARNING: "warning"}.get(letter.urgency, "info")
    done = service.notify(body=body, title=title, notify_type=kind, body_format="text")
    return Sent() if done else Later("apprise could not deliver it, and does not say why")
