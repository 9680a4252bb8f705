"""``forestall docs``: write the pages that are read off tables. Hidden; for ``make docs``."""

from __future__ import annotations

from pathlib import Path

import click

from forestall.admin.herald_unit import (
    AGENT_NAME,
    HERALD_NAME,
    render_agent_unit,
    render_herald_unit,
)
from forestall.admin.unit_file import UNIT_NAME, render_unit
from forestall.cli.exits import exits_markdown
from forestall.cli.main import command as root
from forestall.cli.manual import man_pages
from forestall.cli.table import SECTIONS, present
from forestall.config.docs import settings_markdown
from forestall.control import connection, messages, server
from forestall.control.schema import FIELDS, SCHEMA
from forestall.core.rules import Options
from forestall.guard.journal import KINDS
from forestall.herald.event import OWN_KINDS, URGENCY_NAMES, Event

_CONTROL_HEAD = f"""# The control socket

*Generated from `src/forestall/control/messages.py`; edit that and run `make docs`.*

The guard listens at `{Options().socket_path}` and speaks [varlink](https://varlink.org):
JSON objects with a NUL after each. Everybody may connect; who may do what is decided by the
peer's uid, as the kernel says.

```sh
varlinkctl introspect {Options().socket_path} {messages.INTERFACE}
varlinkctl call {Options().socket_path} {messages.INTERFACE}.GetStatus '{{}}'
varlinkctl --more call {Options().socket_path} {messages.INTERFACE}.Monitor '{{}}'
```

Nobody can make the guard wait or grow: {server.CLIENTS_MAX} clients,
{server.CLIENTS_PER_USER_MAX} of one user, {connection.CALLS_PER_SECOND_MAX} calls a second each,
messages of {connection.MESSAGE_BYTES_MAX // 1024} KiB
({connection.MESSAGE_BYTES_MAX_ROOT // 1024} for root), {server.OUTPUT_BYTES_MAX // 1024} KiB of
answers waiting. A reader that is too slow for Monitor loses events, and sees it by the gap in
their numbers; with `since` it gets what is still among the last {server.EVENTS_KEPT}.
"""

_EVENTS_HEAD = f"""# Events

*Generated from `src/forestall/control/schema.py`, `guard/journal.py` and `herald/event.py`;
edit those and run `make docs`.*

One schema, version {SCHEMA}, wherever events go: `Monitor` on the [control socket](control.md)
(there the number stands beside the event, as `sequence`), webhooks, and the environment of
your own commands (`FORESTALL_` and the field's name in capitals). Fields are added, never
renamed; a change that breaks a reader raises `schema`. What is not known is null or absent,
never zero.

`critical` is told at most once a second. Sequence numbers have no holes in them: a reader that
sees one has lost something, and asks for it with `since`.

| in the seed's script | here |
| --- | --- |
| `timestamp` | `time_ns` |
| `pressure_level` | `level` |
| `memory_percent` | `used_share` (0 to 1) |
| `swap_percent` | `swap_used_share` (0 to 1) |
| `available_gb` | `available_bytes` |
| `top_processes` | `top` |

## Fields
"""


@click.command(hidden=True)
@click.argument("folder", default="docs", type=click.Path(file_okay=False, path_type=Path))
def command(folder: Path) -> None:
    """Write the generated pages into FOLDER; unit files and manual pages into deploy/ beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


def pages() -> dict[str, str]:
    """Return every generated page by its file name."""
    return {
        "settings.md": settings_markdown(),
        "exit-codes.md": exits_markdown(),
        "commands.md": commands_markdown(),
        "control.md": control_markdown(),
        "events.md": events_markdown(),
        f"../deploy/{UNIT_NAME}": render_unit(),
        f"../deploy/{HERALD_NAME}": render_herald_unit(),
        f"../deploy/user/{AGENT_NAME}": render_agent_unit(),
        **{f"../deploy/man/{name}": text for name, text in man_pages().items()},
    }


def control_markdown() -> str:
    """Return the whole of ``docs/control.md``."""
    rows = [
        f"| `{method.name}` | {method.who} | {' '.join(method.help.split())} |"
        for method in messages.METHODS
    ]
    lines = [_CONTROL_HEAD, "| method | for | what it does |", "| --- | --- | --- |", *rows]
    description = messages.interface_description().rstrip("\n")
    lines += ["", "## The interface", "", "```varlink", description, "```"]
    return "\n".join(lines) + "\n"


def events_markdown() -> str:
    """Return the whole of ``docs/events.md``."""
    kinds = {name: (kind.help, kind.message_id) for name, kind in KINDS.items()}
    kinds |= {name: (text, "") for name, text in OWN_KINDS.items()}
    lines = [
        _EVENTS_HEAD,
        "| field | kind | by | what it is |",
        "| --- | --- | --- | --- |",
        *(f"| `{row.name}` | {row.kind} | {row.by} | {row.help} |" for row in FIELDS),
        "\n## Kinds of events\n\nThe urgency is what `least` in the settings of a channel compares",
        "with; a `level` event is a warning from `medium` on, and information below.\n",
        "| what | urgency | meaning | journal `MESSAGE_ID` |",
        "| --- | --- | --- | --- |",
    ]
    for name, (text, message_id) in kinds.items():
        urgency = URGENCY_NAMES[Event(what=name).urgency]
        shown = f"`{message_id}`" if message_id else ""
        lines.append(f"| `{name}` | {urgency} | {text} | {shown} |")
    return "\n".join(lines) + "\n"


def commands_markdown() -> str:
    """Return the whole of ``docs/commands.md``."""
    parts = [
        "# Commands\n\n*Generated from the commands themselves; run `make docs`.*\n",
    ]
    context = click.Context(root, info_name="forestall")
    for title, rows in SECTIONS:
        listed = present(rows)
        if not listed:
            continue
        parts.append(f"\n## {title}\n")
        for row in listed:
            one = root.get_command(context, row.name)
            assert one is not None, row
            parts.append(_command_markdown(f"forestall {row.name}", one, row.help))
    return "".join(parts)


def _command_markdown(name: str, one: click.Command, short: str) -> str:
    arguments = [
        (param.metavar or (param.name or "").upper())
        for param in one.params
        if isinstance(param, click.Argument)
    ]
    usage = " ".join([name, *arguments])
    parts = [f"\n### `{usage}`\n\n{_paragraphs(one.help or short)}\n"]
    options = [
        (", ".join(f"`{opt}`" for opt in (*param.opts, *param.secondary_opts)), param.help or "")
        for param in one.params
        if isinstance(param, click.Option) and not param.hidden
    ]
    if options:
        lines = [f"| {names} | {text.replace('|', '/')} |" for names, text in options]
        parts.append("\n| option | what it does |\n| --- | --- |\n" + "\n".join(lines) + "\n")
    if isinstance(one, click.Group):
        for child_name, child in one.commands.items():
            parts.append(_command_markdown(f"{name} {child_name}", child, child.help or ""))
    return "".join(parts)


def _paragraphs(text: str) -> str:
    # \b marks text that click must not wrap; here it would only show as an odd sign.
    lines = [line.strip() for line in text.replace("\b", "").splitlines()]
    return "\n".join(lines).strip()
