"""Letters as each channel wants them: values in, values out.

Rule: names and sentences are foreign. Each renderer says how it keeps them from
being read as markup, mentions, headers or terminal escapes.
"""

from __future__ import annotations

import html
import re
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from typing import TYPE_CHECKING, Any

from forestall.herald.event import ERROR, clean
from forestall.herald.letter import facts, lines, title
from forestall.herald.moments import moment, utc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forestall.herald.letter import Letter

SLACK_CHARACTERS_MAX = 2900
"""Slack refuses a text block of more than 3000."""
DISCORD_CHARACTERS_MAX = 1900
"""Discord refuses a message of more than 2000."""
NTFY_CHARACTERS_MAX = 3500
"""ntfy turns a message of more than 4096 bytes into a file."""
TERMINAL_LINES_MAX = 4
TERMINAL_CHARACTERS_MAX = 160
NOTE_CHARACTERS_MAX = 500
ENVIRONMENT_CHARACTERS_MAX = 4000

_BREAKABLE = re.compile(r"@|\](?=[(:\[])|:(?=//)|www(?=\.)")
"""After these Slack's and Mattermost's markup would begin a mention or a link."""
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|~>:<@])")
_LOOKALIKES = str.maketrans({"<": "‹", ">": "›", "&": "＆"})  # noqa: RUF001 - that is the point


def text(letter: Letter, characters_max: int = 10_000) -> str:
    """Write title and body as plain text."""
    body = "\n".join([title(letter), *lines(letter)])
    return body if len(body) <= characters_max else body[: characters_max - 1] + "…"


def slack(letter: Letter) -> dict[str, Any]:
    """For Slack: a plain-text block, which has no markup at all, and an escaped fallback.

    The fallback is what Mattermost and notifications show: ``&<>`` are written as
    Slack asks, and invisible spaces keep ``@channel`` from calling everybody and
    Mattermost from making links and pictures.
    """
    body = _BREAKABLE.sub("\\g<0>\u200b", text(letter, SLACK_CHARACTERS_MAX))
    return {
        "text": html.escape(body[:SLACK_CHARACTERS_MAX], quote=False),
        "mrkdwn": False,
        "link_names": False,
        "unfurl_links": False,
        "blocks": [
            {
                "type": "section",
                "text": {"type": "plain_text", "text": body[:3000], "emoji": False},
            }
        ],
    }


def discord(letter: Letter) -> dict[str, Any]:
    """For Discord: markdown escaped, and nobody may be called by it."""
    body = text(letter, DISCORD_CHARACTERS_MAX // 2)
    escaped = _MARKDOWN.sub(r"\\\1", body)
    return {
        "content": escaped[:DISCORD_CHARACTERS_MAX],
        "allowed_mentions": {"parse": []},
        "username": "forestall",
    }


def teams(letter: Letter) -> dict[str, Any]:
    """For a Teams workflow: an adaptive card of text runs, which know no markdown."""
    rows = [title(letter), *lines(letter)]
    blocks = [
        {
            "type": "RichTextBlock",
            "inlines": [{"type": "TextRun", "text": row, "weight": weight}],
        }
        for row, weight in zip(rows, ["Bolder"] + ["Default"] * len(rows), strict=False)
    ]
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": blocks,
    }
    content = {"contentType": "application/vnd.microsoft.card.adaptive", "content": card}
    return {"type": "message", "attachments": [content]}


def ntfy(letter: Letter, topic: str) -> dict[str, Any]:
    """For ntfy: its JSON form, so that no header is made of foreign text; markdown stays off."""
    return {
        "topic": topic,
        "title": title(letter),
        "message": "\n".join(lines(letter))[:NTFY_CHARACTERS_MAX],
        "priority": 3 + letter.urgency,
        "tags": ["forestall", letter.urgency_name],
    }


def webhook(letter: Letter) -> dict[str, Any]:
    """For programs: the letter as data."""
    return {
        "title": title(letter),
        "text": "\n".join(lines(letter)),
        "urgency": letter.urgency_name,
        "count": letter.count,
        "kinds": dict(letter.kinds),
        "events": [event.to_dict() for event in letter.shown],
    }


def mail(letter: Letter, *, sender: str, to: Sequence[str], wall_ns: int) -> EmailMessage:
    """Write a mail: plain text first, and an HTML part in which every text is escaped."""
    message = EmailMessage()
    message["From"] = sender
    message["To"] = ", ".join(to)
    message["Subject"] = title(letter)
    message["Date"] = format_datetime(moment(wall_ns))
    message["Message-ID"] = make_msgid("forestall", domain=_domain(letter))
    message["Auto-Submitted"] = "auto-generated"
    message["X-Priority"] = "1" if letter.urgency == ERROR else "3"
    message.set_content("\n".join(lines(letter)) + f"\n\n{utc(letter.ended_ns)}\n")
    items = "".join(f"<p>{html.escape(line)}</p>" for line in lines(letter))
    message.add_alternative(
        f"<html><body><h3>{html.escape(title(letter))}</h3>{items}"
        f"<p><small>{utc(letter.ended_ns)}</small></p></body></html>",
        subtype="html",
    )
    return message


def terminal(letter: Letter) -> str:
    """For terminals: a few lines of printable characters, each ended as raw terminals need it."""
    rows = [f"*** {title(letter)} ***", *lines(letter)[:TERMINAL_LINES_MAX]]
    return "\r\n" + "".join(clean(row, TERMINAL_CHARACTERS_MAX) + "\r\n" for row in rows)


def note(letter: Letter) -> tuple[str, str]:
    """For desktops: summary and body; some show markup, some do not, so none is possible."""
    body = "\n".join(lines(letter))[:NOTE_CHARACTERS_MAX]
    return title(letter).translate(_LOOKALIKES), body.translate(_LOOKALIKES)


def log_line(letter: Letter) -> str:
    """Write one line for the log."""
    event = letter.last
    head = f"{utc(event.time_ns or letter.ended_ns)} [{event.level or '-'}] {event.what}"
    if event.sequence:
        head += f" #{event.sequence}"
    body = "; ".join([event.sentence, *facts(event)] if letter.count == 1 else lines(letter))
    return f"{head}: {body}"


def environment(letter: Letter) -> dict[str, str]:
    """Write the facts as environment variables; what is unknown is not set."""
    event = letter.last
    known: dict[str, object] = {
        f"FORESTALL_{name.upper()}": held
        for name, held in event.to_dict().items()
        if isinstance(held, str | int | float)
    }
    known |= {
        "FORESTALL_TITLE": title(letter),
        "FORESTALL_TEXT": "\n".join(lines(letter)),
        "FORESTALL_COUNT": letter.count,
        "FORESTALL_URGENCY": letter.urgency_name,
    }
    return {name: _value(held) for name, held in known.items()}


def _value(held: object) -> str:
    return str(held).replace("\0", "")[:ENVIRONMENT_CHARACTERS_MAX]


def _domain(letter: Letter) -> str:
    host = re.sub(r"[^A-Za-z0-9.-]", "", letter.last.host)
    return host or "localhost"
