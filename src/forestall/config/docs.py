"""``docs/settings.md``, read off the tables; a test holds the file to this."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forestall.config import alerts, victims
from forestall.config.conditions import SIGNALS
from forestall.config.show import defaults, render
from forestall.config.table import SECTIONS, TRIGGERS_HELP
from forestall.config.triggers import KEYS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forestall.config.alerts import AlertKey
    from forestall.config.table import Setting

_HEAD = """# Settings

*Generated from the tables in `src/forestall/config/`; edit those and run `make docs`.*

Everything has a default, so no file is needed. The guard reads
`/etc/forestall/forestall.toml`, then `/etc/forestall/forestall.toml.d/*.toml` in the
order of their names. Files are merged key by key and the later file wins. A list
replaces; the list with `_more` after its name adds to it, over all files.

- `forestall config check` reports every problem at once, and what looks like a mistake here.
- `forestall config show` prints what is in force and where each value came from.
- `forestall reload` hands new rules to the running guard; bad settings change nothing.

Percentages, sizes and durations are written in quotes with their unit: `"5%"`,
`"256MiB"` (B KiB MiB GiB TiB), `"2.5s"` (ns us ms s min h). A limit is one of these or
scales with the machine: `"min(2%, 256MiB)"`, `"max(2%, 256MiB)"`.
"""

_VICTIMS = """### Lists of victims

An entry is a string, a regular expression (search) on the process name as the kernel
keeps it (15 bytes), or a table with one of `name`, `exe`, `cmdline`, `unit`, `cgroup`
or `uid`:

```toml
[victims]
never = ["^payments$", { unit = "^database@", oom_score_adj = -500 }]
avoid_more = [{ exe = "^/opt/backup/" }]
prefer_more = [{ cmdline = "--type=renderer" }, { uid = 1001 }]
```

`oom_score_adj` in an entry is what `forestall protect` gives to the processes it matches.

The first rule that matches a process counts: `never` before all; then what was written
in files, then what is built in; within these `avoid`, `normal`, `prefer`.
"""

_TRIGGERS = """## `[triggers.NAME]`

{help} A table under the name of a default trigger changes what it
names and keeps the rest.

```toml
[triggers.mine]
stage = "terminate"
when = ["available < min(8%, 2GiB)", "stall_full[2s] > 20%"]
for = "1s"

[triggers.low]
enabled = false

[triggers.cache-at-medium]  # drop the page cache when less than 15% is available
enabled = true

[triggers.swap-above-half]  # and recycle swap when more than half of it is in use
enabled = true
```

The last two are known and off: the clean-up that many scripts do by themselves, here behind the
same guards as `forestall clean`.

"""


def settings_markdown() -> str:
    """Return the whole of ``docs/settings.md``."""
    parts = [_HEAD]
    for section in SECTIONS:
        parts.append(f"\n## `[{section.name}]`\n\n{section.help}\n\n")
        parts.append(_table(("setting", "default", "what it is"), map(_row, section.settings)))
        if section.name == "victims":
            parts.append("\n" + _VICTIMS + "\n")
            rows = ((f"`{row.name}`, `{row.name}_more`", row.help) for row in victims.LISTS)
            parts.append(_table(("list", "what it is"), rows))
    parts.append("\n" + _TRIGGERS.format(help=TRIGGERS_HELP))
    keys = ((f"`{key.name}`", f"`{key.example}`", key.help) for key in KEYS)
    parts.append(_table(("key", "example", "what it is"), keys))
    parts.append("\nA condition is a signal, `<` or `>`, and an amount:\n\n")
    signals = ((f"`{row.signal.value}`", f"`{row.example}`", row.help) for row in SIGNALS)
    parts.append(_table(("signal", "example", "what it is"), signals))
    parts.append("\nA condition whose signal the kernel does not tell never holds.\n")
    parts.append(_alerts())
    parts.append("\n## The defaults\n\n```toml\n" + render(defaults(), origins=False) + "```\n")
    return "".join(parts)


def _alerts() -> str:
    parts = [f"\n## `[alerts.NAME]`\n\n{alerts.ALERTS_HELP} More in [alerts.md](alerts.md).\n\n"]
    head = ("key", "default", "what it is")
    parts.append(_table(head, map(_alert_row, alerts.COMMON)))
    for kind in alerts.KINDS:
        parts.append(f'\n### `type = "{kind.name}"`\n\n{kind.help}\n')
        if kind.keys:
            parts.append("\n" + _table(head, map(_alert_row, kind.keys)))
    return "".join(parts)


def _alert_row(row: AlertKey) -> tuple[str, str, str]:
    unset = row.default is None or row.default in ("", ())
    default = (
        "required" if row.required else "none" if unset else f"`{row.form.render(row.default)}`"
    )
    return f"`{row.name}`", default, row.help


def _row(setting: Setting) -> tuple[str, str, str]:
    default = "not set" if setting.default is None else f"`{setting.form.render(setting.default)}`"
    limits = f" Must lie {setting.range_text}." if setting.range_text else ""
    return f"`{setting.name}`", default, setting.help + limits


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in rows:
        lines.append(
            "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in row) + " |"
        )
    return "\n".join(lines) + "\n"
