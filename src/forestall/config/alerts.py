"""The tables of ``[alerts.NAME]``: where alerts go. One row per kind of channel.

Secrets are never written here: ``secret`` names a systemd credential or a file.
Rule: what is in these settings may be shown to anybody.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from forestall.config import forms
from forestall.config.suggest import did_you_mean
from forestall.config.triggers import is_name
from forestall.core.units import MINUTE, SECOND

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forestall.config.forms import Form

ALERTS_HELP = (
    "Where alerts go, a table per channel. Read by herald, which `systemctl restart "
    "forestall-herald` restarts; the guard does not look at them."
)
CHANNELS_MAX = 16
LIST_MAX = 64
URGENCIES = ("info", "warning", "error")


def _parse_list(raw: object) -> tuple[str, ...]:
    if not isinstance(raw, list) or not raw or not all(isinstance(one, str) for one in raw):
        raise ValueError('write a list of texts, such as ["…"]')
    if len(raw) > LIST_MAX or any("\0" in one for one in raw):
        raise ValueError(f"at most {LIST_MAX} texts, without NUL")
    return tuple(raw)


def _render_list(texts: tuple[str, ...]) -> str:
    return "[" + ", ".join(forms.render_text(text) for text in texts) + "]"


def _parse_command(raw: object) -> tuple[str, ...]:
    command = _parse_list(raw)
    if not command[0].startswith("/"):
        raise ValueError("the command is given by its absolute path; there is no shell")
    return command


def _parse_url(raw: object) -> str:
    text = forms.parse_text(raw)
    head, _, rest = text.partition("://")
    if head not in {"http", "https"} or not rest or not text.isascii() or not text.isprintable():
        raise ValueError('write an address, such as "https://ntfy.example.org"')
    if "@" in rest.partition("/")[0]:
        raise ValueError("no passwords here: put the whole address into a secret")
    return text


def _parse_line(raw: object) -> str:
    text = forms.parse_text(raw)
    if not text.isprintable():
        raise ValueError("must be one line of printable characters")
    return text


def _parse_secret(raw: object) -> str:
    text = forms.parse_text(raw)
    if "://" in text:
        raise ValueError("this names a credential or a file; the secret itself stays in there")
    if not text.startswith("/") and not is_name(text):
        raise ValueError("write the name of a credential, or the absolute path of a file")
    return forms.parse_path(text) if text.startswith("/") else text


def _parse_addresses(raw: object) -> tuple[str, ...]:
    # A line end in an address would begin a header of its own.
    return tuple(_parse_line(one) for one in _parse_list(raw))


_TEXTS = forms.Form("list of texts", '["decision", "ended"]', _parse_list, _render_list)
_ADDRESSES = forms.Form("list of addresses", '["ops@example.org"]', _parse_addresses, _render_list)
_COMMAND = forms.Form("command", '["/usr/local/bin/page", "-v"]', _parse_command, _render_list)
_URL = forms.Form("address", '"https://ntfy.example.org"', _parse_url, forms.render_text)
_LINE = forms.Form("text", '"ops@example.org"', _parse_line, forms.render_text)
_SECRET = forms.Form("secret's name", '"slack"', _parse_secret, forms.render_text)


@dataclass(frozen=True, slots=True)
class AlertKey:
    """One key of a channel's table."""

    name: str
    form: Form
    help: str
    default: Any = None
    required: bool = False
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True, slots=True)
class AlertKind:
    """One kind of channel."""

    name: str
    help: str
    keys: tuple[AlertKey, ...] = ()
    folds: bool = True
    """Whether a storm becomes one summary; a log has every line."""


COMMON = (
    AlertKey("type", _LINE, "The kind of channel, see below.", required=True),
    AlertKey("enabled", forms.FLAG, "False takes the channel out.", default=True),
    AlertKey(
        "least",
        forms.choice(*URGENCIES),
        "Leave out what is less urgent.",
        default="warning",
    ),
    AlertKey("events", _TEXTS, "Only these kinds of events; see docs/events.md.", default=()),
    AlertKey(
        "fold",
        forms.DURATION,
        "What comes so soon after another becomes one summary.",
        default=30 * SECOND,
        least=0,
        most=60 * MINUTE,
    ),
    AlertKey(
        "timeout",
        forms.DURATION,
        "How long one try may take.",
        default=10 * SECOND,
        least=SECOND // 10,
        most=2 * MINUTE,
    ),
)
_ADDRESS_SECRET = AlertKey("secret", _SECRET, "Holds the address (URL).", required=True)

KINDS = (
    AlertKind(
        "log",
        "Every event as a line of a file.",
        (
            AlertKey("path", forms.PATH, "The file.", "/var/log/forestall/events.log"),
            AlertKey(
                "rotate", forms.SIZE, "Begin a new file at this size.", 4 << 20, least=1 << 10
            ),
            AlertKey("kept", forms.INTEGER, "Old files that are kept.", 5, least=0, most=100),
        ),
        folds=False,
    ),
    AlertKind(
        "terminals", "A few lines on every terminal that takes messages (`mesg y`), SSH too."
    ),
    AlertKind("desktop", "The system-bus signal that systembus-notify shows; needs jeepney."),
    AlertKind("slack", "A Slack webhook, or one that speaks like it.", (_ADDRESS_SECRET,)),
    AlertKind("discord", "A Discord webhook.", (_ADDRESS_SECRET,)),
    AlertKind("teams", "A webhook of a Teams workflow.", (_ADDRESS_SECRET,)),
    AlertKind(
        "ntfy",
        "A topic of an ntfy server.",
        (
            AlertKey("url", _URL, "The server.", "https://ntfy.sh"),
            AlertKey("topic", _LINE, "The topic.", required=True),
            AlertKey("secret", _SECRET, "Holds an access token.", ""),
        ),
    ),
    AlertKind(
        "webhook",
        "The events as JSON, by POST.",
        (
            AlertKey("url", _URL, "Where to; instead of a secret.", ""),
            AlertKey("secret", _SECRET, "Holds the address (URL).", ""),
        ),
    ),
    AlertKind(
        "smtp",
        "Mail by a server.",
        (
            AlertKey("host", _LINE, "The server.", required=True),
            AlertKey("port", forms.INTEGER, "Its port.", 587, least=1, most=65535),
            AlertKey(
                "tls", forms.choice("starttls", "tls", "none"), "How it is encrypted.", "starttls"
            ),
            AlertKey("user", _LINE, "Log in as.", ""),
            AlertKey("secret", _SECRET, "Holds the password.", ""),
            AlertKey("sender", _LINE, "From.", required=True),
            AlertKey("to", _ADDRESSES, "To whom.", required=True),
        ),
    ),
    AlertKind(
        "sendmail",
        "Mail by this machine's own mail program.",
        (
            AlertKey("path", forms.PATH, "The program.", "/usr/sbin/sendmail"),
            AlertKey("sender", _LINE, "From.", "forestall"),
            AlertKey("to", _ADDRESSES, "To whom.", required=True),
        ),
    ),
    AlertKind(
        "command",
        "A command of your own, with the facts in its environment.",
        (
            AlertKey("command", _COMMAND, "The command and its arguments.", required=True),
            AlertKey("user", _LINE, "Run as this user, when herald is root.", "nobody"),
        ),
    ),
    AlertKind("apprise", "Everything that apprise knows; needs it.", (_ADDRESS_SECRET,)),
)
BY_NAME = {kind.name: kind for kind in KINDS}


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel as the settings have it."""

    name: str
    kind: str
    keys: Mapping[str, Any] = field(default_factory=dict)
    """The rest, defaults filled in."""


_LOG_KEYS: dict[str, Any] = {"type": "log", "least": "info"}
DEFAULT_TABLES: Mapping[str, Mapping[str, Any]] = {
    "log": _LOG_KEYS,
    "desktop": {"type": "desktop"},
    "terminals": {"type": "terminals", "least": "error"},
}
"""Channels of a machine without settings; a table under the same name changes one."""


def read_channel(name: str, given: Mapping[str, Any]) -> tuple[Channel | None, dict[str, str]]:
    """Read one channel's merged table.

    Returns: The channel, None if it is switched off or wrong; and what is wrong,
    by key.
    """
    wrong: dict[str, str] = {}
    table = {**DEFAULT_TABLES.get(name, {}), **given}
    if not is_name(name):
        wrong[""] = "name channels with letters, digits, - and _, at most 40 of them"
    kind = BY_NAME.get(str(table.get("type")))
    if kind is None:
        names = tuple(BY_NAME)
        hint = did_you_mean(str(table.get("type", "")), names)
        wrong["type"] = f"write one of {', '.join(names)}{hint}"
        return None, wrong
    rows = {row.name: row for row in (*COMMON, *kind.keys)}
    for key in table:
        if key not in rows:
            wrong[key] = f"is no key of a {kind.name} channel{did_you_mean(key, rows)}"
    keys = {row.name: _take(row, table, wrong) for row in rows.values()}
    if kind.name == "webhook" and not wrong and not (keys["url"] or keys["secret"]):
        wrong["secret"] = "is missing; or write url"  # noqa: S105 - a message
    if kind.name == "smtp" and not wrong and bool(keys["user"]) != bool(keys["secret"]):
        wrong["secret" if keys["user"] else "user"] = "is missing: one is no use without the other"
    if wrong or not keys.pop("enabled"):
        return None, wrong
    keys.pop("type")
    return Channel(name, kind.name, keys), wrong


def render_channel(channel: Channel) -> list[str]:
    """Write a channel as TOML; there is no secret in it to be shown."""
    rows = {row.name: row for row in (*COMMON, *BY_NAME[channel.kind].keys)}
    lines = [f"[alerts.{channel.name}]", f'type = "{channel.kind}"']
    for name, held in channel.keys.items():
        if held not in ("", ()):
            lines.append(f"{name} = {rows[name].form.render(held)}")
    return lines


def default_channels() -> tuple[Channel, ...]:
    """Return the channels of a machine without settings."""
    found = (read_channel(name, {})[0] for name in DEFAULT_TABLES)
    return tuple(channel for channel in found if channel is not None)


def _take(row: AlertKey, table: Mapping[str, Any], wrong: dict[str, str]) -> Any:  # noqa: ANN401 - each form has its own type
    if row.name not in table:
        if row.required:
            wrong[row.name] = f"is missing: {row.help}"
        return row.default
    try:
        got = row.form.parse(table[row.name])
    except ValueError as error:
        wrong[row.name] = str(error)
        return row.default
    if (row.least is not None and got < row.least) or (row.most is not None and got > row.most):
        least = "" if row.least is None else row.form.render(row.least)
        most = "" if row.most is None else row.form.render(row.most)
        wrong[row.name] = f"must lie between {least} and {most}" if most else f"at least {least}"
    return got
