"""From a channel of the settings to what sends on it: one place that knows every kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forestall.core.units import SECOND
from forestall.herald import render
from forestall.herald.channels import bus, command, logfile, other, terminals, web
from forestall.herald.errors import SecretError
from forestall.herald.letter import lines, title
from forestall.herald.outcome import Later, Never, Outcome
from forestall.herald.secret import read_secret, redact

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forestall.config.alerts import Channel
    from forestall.herald.letter import Letter


def send(
    channel: Channel, letter: Letter, *, environment: Mapping[str, str], wall_ns: int
) -> Outcome:
    """Send one letter on one channel; blocks, within the channel's time limit."""
    name = channel.keys.get("secret") or ""
    secret = ""
    try:
        secret = read_secret(name, environment) if name else ""
        return _send(channel, letter, secret, environment, wall_ns)
    except SecretError as error:
        return Later(str(error))
    except Exception as error:  # noqa: BLE001 - a library's own mistake must cost one letter, not herald.
        return Never(redact(f"{type(error).__name__}: {error}", secret))


def _send(
    channel: Channel, letter: Letter, secret: str, environment: Mapping[str, str], wall_ns: int
) -> Outcome:
    keys = channel.keys
    match channel.kind:
        case "slack" | "discord" | "teams" | "webhook" | "ntfy":
            return _post(channel, letter, secret)
        case "smtp" | "sendmail":
            return _mail(channel, letter, secret, environment, wall_ns)
        case "command":
            return command.run(channel, render.environment(letter))
        case "log":
            return logfile.append(
                render.log_line(letter),
                path=keys["path"],
                rotate_bytes=keys["rotate"],
                kept=keys["kept"],
            )
        case "terminals":
            return terminals.write(render.terminal(letter), terminals.terminals())
        case "desktop":
            return bus.signal_on_system_bus(*render.note(letter))
        case "apprise":
            body = "\n".join(lines(letter))
            return other.send(letter, url=secret, title=title(letter), body=body)
    raise AssertionError(channel.kind)


def _post(channel: Channel, letter: Letter, secret: str) -> Outcome:
    timeout_ns: int = channel.keys["timeout"]
    if channel.kind == "ntfy":
        body = render.ntfy(letter, channel.keys["topic"])
        return web.post(channel.keys["url"], body, timeout_ns=timeout_ns, token=secret)
    renderers = {
        "slack": render.slack,
        "discord": render.discord,
        "teams": render.teams,
        "webhook": render.webhook,
    }
    url = secret or channel.keys.get("url") or ""
    return web.post(url, renderers[channel.kind](letter), timeout_ns=timeout_ns)


def _mail(
    channel: Channel, letter: Letter, secret: str, environment: Mapping[str, str], wall_ns: int
) -> Outcome:
    from forestall.herald.channels import mail  # noqa: PLC0415 - 9 MiB, for those who mail

    keys = channel.keys
    message = render.mail(letter, sender=keys["sender"], to=keys["to"], wall_ns=wall_ns)
    if channel.kind == "smtp":
        return mail.by_server(channel, message, secret)
    return mail.by_program(channel, message, {"PATH": environment.get("PATH", "/usr/bin:/bin")})


def overdue_ns(channel: Channel) -> int:
    """Return how long a try may take before it counts as stuck."""
    return 4 * int(channel.keys["timeout"]) + 10 * SECOND
