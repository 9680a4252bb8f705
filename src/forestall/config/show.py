"""Settings back to TOML, each with where it came from; reads back as the same rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forestall.config import victims
from forestall.config.alerts import ALERTS_HELP, DEFAULT_TABLES, render_channel
from forestall.config.read import BUILT_IN, Settings
from forestall.config.table import SECTIONS, TRIGGERS_HELP
from forestall.config.triggers import render_trigger
from forestall.core.rules import DEFAULT_RULES, DEFAULT_TRIGGERS, Options

if TYPE_CHECKING:
    from typing import Any

    from forestall.config.table import Setting
    from forestall.core.rules import VictimRule

_ORIGIN_COLUMN = 44


def defaults() -> Settings:
    """Return the settings of a machine without any file."""
    return Settings(DEFAULT_RULES, Options(), {})


def current(settings: Settings, setting: Setting) -> Any:  # noqa: ANN401 - each form has its own type
    """Return the value of a setting as the program holds it."""
    if setting.section == "guard":
        return getattr(settings.options, setting.field)
    if setting.field:
        return getattr(settings.rules, setting.field)
    for rule in settings.rules.levels:
        if setting.name == rule.level.value:
            return rule.used_share
        if setting.name == f"{rule.level.value}_unless_available":
            return rule.available_max_bytes
    raise AssertionError(setting.key)


def render(settings: Settings, *, origins: bool = True) -> str:
    """Write all settings as one TOML file.

    Args:
        origins: Put where each value came from behind it, as a comment.
    """
    lines: list[str] = []
    for section in SECTIONS:
        lines += [f"[{section.name}]"]
        for setting in section.settings:
            lines.append(_line(settings, setting, origins=origins))
        if section.name == "victims":
            lines += _lists(settings, origins=origins)
        lines.append("")
    lines += [f"# {TRIGGERS_HELP}"]
    for trigger in settings.rules.triggers:
        origin = settings.origins.get(f"triggers.{trigger.name}", BUILT_IN)
        head, *rest = render_trigger(trigger)
        lines += [_with_origin(head, origin, origins=origins), *rest, ""]
    kept = {trigger.name for trigger in settings.rules.triggers}
    for trigger in DEFAULT_TRIGGERS:
        if trigger.name not in kept:
            origin = settings.origins.get(f"triggers.{trigger.name}.enabled", BUILT_IN)
            head = _with_origin(f"[triggers.{trigger.name}]", origin, origins=origins)
            lines += [head, "enabled = false", ""]
    lines += _channels(settings, origins=origins)
    return "\n".join(lines).rstrip("\n") + "\n"


def _channels(settings: Settings, *, origins: bool) -> list[str]:
    lines = [f"# {ALERTS_HELP}"]
    for channel in settings.channels:
        origin = settings.origins.get(f"alerts.{channel.name}", BUILT_IN)
        head, *rest = render_channel(channel)
        lines += [_with_origin(head, origin, origins=origins), *rest, ""]
    kept = {channel.name for channel in settings.channels}
    for name in DEFAULT_TABLES:
        if name not in kept:
            lines += [f"[alerts.{name}]", "enabled = false", ""]
    return lines


def _line(settings: Settings, setting: Setting, *, origins: bool) -> str:
    held = current(settings, setting)
    if held is None:
        return f"# {setting.name} is not set"
    text = f"{setting.name} = {setting.form.render(held)}"
    return _with_origin(text, settings.origins.get(setting.key, BUILT_IN), origins=origins)


def _lists(settings: Settings, *, origins: bool) -> list[str]:
    lines: list[str] = []
    for row in victims.LISTS:
        rules = [rule for rule in settings.rules.victim_rules if rule.standing is row.standing]
        lines.append(f"{row.name} = [")
        for rule in rules:
            text = f"  {victims.render_entry(rule)},"
            lines.append(_with_origin(text, _origin_of(rule), origins=origins))
        lines.append("]")
    return lines


def _origin_of(rule: VictimRule) -> str:
    if victims.is_built_in(rule):
        return BUILT_IN
    return rule.label.rpartition("(")[2].removesuffix(")")


def _with_origin(text: str, origin: str, *, origins: bool) -> str:
    if not origins:
        return text
    # A file's name may hold anything but a slash; a line end in it must not end the comment.
    safe = "".join(char if char.isprintable() else "?" for char in origin)
    return f"{text:<{_ORIGIN_COLUMN}} # {safe}"
