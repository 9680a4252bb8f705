"""Settings files to rules and options, or every problem at once.

Files are read in order: ``forestall.toml``, then ``forestall.toml.d/*.toml`` by
name. They are merged key by key, the later file wins; a list replaces, its
``_more`` twin adds. Rule: nothing here guesses; an unknown key is a problem.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forestall.config import alerts, victims
from forestall.config.errors import ConfigError, Problem
from forestall.config.suggest import did_you_mean
from forestall.config.table import BY_KEY, SECTIONS
from forestall.config.triggers import TRIGGERS_MAX, read_trigger
from forestall.core.rules import DEFAULT_RULES, DEFAULT_TRIGGERS, LevelRule, Options, Rules

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from forestall.core.rules import Trigger, VictimRule

BUILT_IN = "built-in"
MAIN_FILE = "etc/forestall/forestall.toml"
DROP_IN_DIR = "etc/forestall/forestall.toml.d"
FILE_BYTES_MAX = 256 * 1024
FILES_MAX = 64

_SECTION_NAMES = (*(section.name for section in SECTIONS), "triggers", "alerts")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the settings say, and where each of them came from."""

    rules: Rules
    options: Options
    origins: Mapping[str, str]
    """File by dotted key; what is not here is built in."""
    files: tuple[str, ...] = ()
    """The files that were read, in order."""
    channels: tuple[alerts.Channel, ...] = field(default_factory=alerts.default_channels)
    """Where alerts go."""


@dataclass(slots=True)
class _Merged:
    """What all files say together, before it is understood."""

    scalars: dict[str, Any] = field(default_factory=dict)
    triggers: dict[str, dict[str, Any]] = field(default_factory=dict)
    alerts: dict[str, dict[str, Any]] = field(default_factory=dict)
    lists: dict[str, list[tuple[object, str, int]]] = field(default_factory=dict)
    """By name of the list: entry, file, place in that file."""
    origins: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def problem(self, key: str, what: str, file: str | None = None) -> None:
        """Note a mistake; the file is the one that set the key, unless given."""
        self.problems.append(Problem(file or self.origins.get(key, "settings"), key, what))


def default_paths(root: str | Path = "/") -> list[Path]:
    """Find the settings files of a machine, in the order in which they are read."""
    base = Path(root)
    main = base / MAIN_FILE
    drop_ins = sorted((base / DROP_IN_DIR).glob("*.toml"), key=lambda path: path.name)
    return ([main] if main.exists() else []) + drop_ins


def load(paths: Sequence[str | Path] | None = None, root: str | Path = "/") -> Settings:
    """Read settings; with no files everything has its default.

    Args:
        paths: The files, in order; None for those of the machine.
        root: Where the machine's files are looked for.

    Raises: ConfigError with every problem in every file.
    """
    files = default_paths(root) if paths is None else [Path(path) for path in paths]
    merged = _Merged()
    if len(files) > FILES_MAX:
        merged.problem("", f"more than {FILES_MAX} settings files", str(files[0].parent))
    for path in files[:FILES_MAX]:
        _merge(merged, _read_file(merged, path), str(path))
    return _understand(merged, tuple(str(path) for path in files))


def load_text(text: str, source: str = "settings") -> Settings:
    """Read settings from a text, as ``load`` from one file.

    Raises: ConfigError with every problem.
    """
    merged = _Merged()
    _merge(merged, _parse_toml(merged, text, source), source)
    return _understand(merged, (source,))


def _read_file(merged: _Merged, path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        merged.problem("", f"cannot be read: {error.strerror}", str(path))
        return {}
    if len(raw) > FILE_BYTES_MAX:
        merged.problem("", f"larger than {FILE_BYTES_MAX} bytes", str(path))
        return {}
    try:
        return _parse_toml(merged, raw.decode(), str(path))
    except UnicodeDecodeError as error:
        merged.problem("", f"is not UTF-8 at byte {error.start}", str(path))
        return {}


def _parse_toml(merged: _Merged, text: str, source: str) -> Mapping[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        merged.problem("", f"is not TOML: {error}", source)
    except (RecursionError, ValueError) as error:
        # tomllib recurses into nested arrays, and int() refuses 4,300 digits.
        merged.problem("", f"is not TOML that can be read: {error}", source)
    return {}


def _merge(merged: _Merged, given: Mapping[str, Any], file: str) -> None:
    for section, table in given.items():
        if section not in _SECTION_NAMES:
            what = f"there is no such section{did_you_mean(section, _SECTION_NAMES)}"
            merged.problem(section, what, file)
        elif not isinstance(table, dict):
            merged.problem(section, f"is a section; write [{section}]", file)
        elif section == "triggers":
            _merge_tables(merged, section, merged.triggers, table, file)
        elif section == "alerts":
            _merge_tables(merged, section, merged.alerts, table, file)
        else:
            _merge_section(merged, section, table, file)


def _merge_section(merged: _Merged, section: str, table: Mapping[str, Any], file: str) -> None:
    known = [key.partition(".")[2] for key in BY_KEY if key.startswith(f"{section}.")]
    if section == "victims":
        known += victims.LIST_KEYS
    for name, raw in table.items():
        key = f"{section}.{name}"
        if name not in known:
            merged.problem(key, f"there is no such setting{did_you_mean(name, known)}", file)
        elif key in BY_KEY:
            merged.scalars[key] = raw
            merged.origins[key] = file
        else:
            _merge_list(merged, name, raw, file)


def _merge_list(merged: _Merged, name: str, raw: object, file: str) -> None:
    key = f"victims.{name}"
    if not isinstance(raw, list):
        merged.problem(key, 'write a list, such as ["^mysqld$"]', file)
        return
    if len(raw) > victims.ENTRIES_MAX:
        merged.problem(key, f"more than {victims.ENTRIES_MAX} entries", file)
        return
    entries = [(entry, file, place) for place, entry in enumerate(raw)]
    if name.endswith(victims.MORE):
        merged.lists.setdefault(name, []).extend(entries)
        before = merged.origins.get(key)
        merged.origins[key] = f"{before}, {file}" if before else file
    else:
        merged.lists[name] = entries
        merged.origins[key] = file


def _merge_tables(
    merged: _Merged,
    section: str,
    into: dict[str, dict[str, Any]],
    table: Mapping[str, Any],
    file: str,
) -> None:
    for name, keys in table.items():
        dotted = f"{section}.{name}"
        if not isinstance(keys, dict):
            merged.problem(dotted, f"is a table; write [{dotted}]", file)
            continue
        into.setdefault(name, {}).update(keys)
        merged.origins[dotted] = file
        for key in keys:
            merged.origins[f"{dotted}.{key}"] = file


def _understand(merged: _Merged, files: tuple[str, ...]) -> Settings:
    scalars = _scalars(merged)
    triggers = _triggers(merged)
    victim_rules = _victim_rules(merged)
    levels = _levels(merged, scalars)
    channels = _channels(merged)
    if merged.problems:
        raise ConfigError(merged.problems)
    of_rules = {s.field: scalars[s.key] for s in BY_KEY.values() if s.field in Rules._fields}  # type: ignore[attr-defined]
    of_options = {s.field: scalars[s.key] for s in BY_KEY.values() if s.section == "guard"}
    rules = Rules(
        **{
            **DEFAULT_RULES._asdict(),  # type: ignore[attr-defined]
            **of_rules,
            "levels": levels,
            "triggers": triggers,
            "victim_rules": victim_rules,
        }
    )
    return Settings(rules, Options(**of_options), dict(merged.origins), files, channels)


def _scalars(merged: _Merged) -> dict[str, Any]:
    got = {}
    for key, setting in BY_KEY.items():
        got[key] = setting.default
        if key in merged.scalars:
            try:
                got[key] = setting.read(merged.scalars[key])
            except ValueError as error:
                merged.problem(key, str(error))
    return got


def _levels(merged: _Merged, scalars: Mapping[str, Any]) -> tuple[LevelRule, ...]:
    rows = tuple(
        LevelRule(
            rule.level,
            scalars[f"levels.{rule.level.value}"],
            scalars[f"levels.{rule.level.value}_unless_available"],
        )
        for rule in DEFAULT_RULES.levels
    )
    bad_keys = {problem.key for problem in merged.problems}
    for mild, harsh in pairwise(rows):
        mild_key, harsh_key = f"levels.{mild.level.value}", f"levels.{harsh.level.value}"
        if mild.used_share >= harsh.used_share and not bad_keys & {mild_key, harsh_key}:
            key = harsh_key if harsh_key in merged.origins else mild_key
            above = f"{harsh.level.value} must lie above {mild.level.value}"
            merged.problem(
                key, f"{above}: they are {harsh.used_share:.0%} and {mild.used_share:.0%}"
            )
    return rows


def _triggers(merged: _Merged) -> tuple[Trigger, ...]:
    names = [trigger.name for trigger in DEFAULT_TRIGGERS]
    names += [name for name in merged.triggers if name not in names]
    if len(names) > TRIGGERS_MAX:
        merged.problem("triggers", f"more than {TRIGGERS_MAX} triggers", "settings")
        return ()
    triggers = []
    for name in names:
        trigger, wrong = read_trigger(name, merged.triggers.get(name, {}))
        for key, what in wrong.items():
            dotted = f"triggers.{name}" + (f".{key}" if key else "")
            setter = merged.origins.get(dotted.partition("[")[0])
            merged.problem(dotted, what, setter or merged.origins[f"triggers.{name}"])
        if trigger is not None:
            triggers.append(trigger)
    return tuple(triggers)


def _channels(merged: _Merged) -> tuple[alerts.Channel, ...]:
    names = [*alerts.DEFAULT_TABLES, *merged.alerts]
    channels = []
    for name in dict.fromkeys(names):
        channel, wrong = alerts.read_channel(name, merged.alerts.get(name, {}))
        for key, what in wrong.items():
            dotted = f"alerts.{name}" + (f".{key}" if key else "")
            setter = merged.origins.get(dotted) or merged.origins[f"alerts.{name}"]
            merged.problem(dotted, what, setter)
        if channel is not None:
            channels.append(channel)
    if len(channels) > alerts.CHANNELS_MAX:
        merged.problem("alerts", f"more than {alerts.CHANNELS_MAX} channels", "settings")
    return tuple(channels)


def _victim_rules(merged: _Merged) -> tuple[VictimRule, ...]:
    rules: list[VictimRule] = []
    for row in victims.LISTS:
        given = list(_entries(merged, row.name))
        if row.name not in merged.lists:
            rules.extend(victims.defaults(row))
        for entry, file, key in [*given, *_entries(merged, row.name + victims.MORE)]:
            try:
                rules.append(victims.parse_entry(entry, row, Path(file).name))
            except ValueError as error:
                merged.problem(key, str(error), file)
    return victims.in_order(rules)


def _entries(merged: _Merged, name: str) -> Iterable[tuple[object, str, str]]:
    for entry, file, place in merged.lists.get(name, ()):
        yield entry, file, f"victims.{name}[{place}]"
