"""Mail: by a server (SMTP), or by this machine's own mail program."""

from __future__ import annotations

import smtplib
import ssl
import subprocess
from email.policy import SMTP as SMTP_POLICY
from typing import TYPE_CHECKING

from forestall.core.units import SECOND
from forestall.herald.event import clean
from forestall.herald.outcome import Later, Never, Outcome, Sent
from forestall.herald.secret import redact

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from email.message import EmailMessage

    from forestall.config.alerts import Channel

_EX_TEMPFAIL = 75
_EX_USAGE_TO_PROTOCOL = range(64, 79)


def by_server(channel: Channel, message: EmailMessage, password: str) -> Outcome:
    """Hand a mail to an SMTP server; a refused log-in waits for the settings to be mended."""
    keys = channel.keys
    try:
        with _connect(keys["host"], keys["port"], keys["tls"], keys["timeout"] / SECOND) as server:
            if keys["user"]:
                server.login(keys["user"], password)
            refused = server.send_message(message, keys["sender"], list(keys["to"]))
    except smtplib.SMTPAuthenticationError as error:
        return Later(redact(f"log-in refused: {_answer(error.smtp_error)}", password))
    except smtplib.SMTPRecipientsRefused as error:
        codes = [code for code, _text in error.recipients.values()]
        why = "; ".join(f"{code} {_answer(said)}" for code, said in error.recipients.values())
        return Never(why) if all(code >= 500 for code in codes) else Later(why)
    except smtplib.SMTPResponseException as error:
        why = redact(f"{error.smtp_code} {_answer(error.smtp_error)}", password)
        return Never(why) if error.smtp_code >= 500 else Later(why)
    except (OSError, smtplib.SMTPException, ValueError) as error:
        return Later(redact(f"not sent: {clean(str(error))}", password))
    if refused:
        # Sent to the others: a second try would send it to them twice.
        return Never("sent, but not to " + clean(", ".join(refused)))
    return Sent()


def by_program(channel: Channel, message: EmailMessage, environment: Mapping[str, str]) -> Outcome:
    """Hand a mail to sendmail; recipients are arguments behind ``--``, never options."""
    keys = channel.keys
    to: Sequence[str] = keys["to"]
    try:
        done = subprocess.run(
            [keys["path"], "-i", "-f", keys["sender"], "--", *to],
            input=message.as_bytes(policy=SMTP_POLICY.clone(linesep="\n")),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=dict(environment),
            timeout=keys["timeout"] / SECOND,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Later(f"{keys['path']} took too long")
    except OSError as error:
        return Later(f"{keys['path']} cannot be started: {error.strerror}")
    if done.returncode == 0:
        return Sent()
    why = f"{keys['path']} ended with {done.returncode}"
    final = done.returncode in _EX_USAGE_TO_PROTOCOL and done.returncode != _EX_TEMPFAIL
    return Never(why) if final else Later(why)


def _connect(host: str, port: int, tls: str, timeout_s: float) -> smtplib.SMTP:
    if tls == "tls":
        context = ssl.create_default_context()
        return smtplib.SMTP_SSL(host, port, timeout=timeout_s, context=context)
    server = smtplib.SMTP(host, port, timeout=timeout_s)
    if tls == "starttls":
        try:
            server.starttls(context=ssl.create_default_context())
        except (OSError, smtplib.SMTPException):
            server.close()
            raise
    return server


def _answer(raw: bytes | str) -> str:
    return clean(raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw, 120)
