"""Every setting, once: the parser, ``config show``, the docs and the tests are read off it.

Defaults are not written here: they are ``DEFAULT_RULES`` and ``Options()`` of
the core, which the guard falls back to as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forestall.config import forms
from forestall.core.rules import DEFAULT_RULES, Options
from forestall.core.units import GIB, KIB, MIB, MINUTE, MS, SECOND

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from forestall.config.forms import Form
    from forestall.core.rules import LevelRule


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a section."""

    section: str
    name: str
    form: Form
    default: Any
    """As the program holds it; None where absent means something of its own."""
    help: str
    field: str = ""
    """Of Rules or Options, if it is one field there."""
    least: float | None = None
    most: float | None = None

    @property
    def key(self) -> str:
        """The dotted name, as messages and origins have it."""
        return f"{self.section}.{self.name}"

    def read(self, raw: object) -> Any:  # noqa: ANN401 - each form has its own type
        """Read the value as written.

        Raises: ValueError with a sentence for the person who wrote it.
        """
        got = self.form.parse(raw)
        if (self.least is not None and got < self.least) or (
            self.most is not None and got > self.most
        ):
            raise ValueError(f"must lie {self.range_text}")
        return got

    @property
    def range_text(self) -> str:
        """The limits in words, or nothing."""
        least = "" if self.least is None else self.form.render(self.least).strip('"')
        most = "" if self.most is None else self.form.render(self.most).strip('"')
        if least and most:
            return f"between {least} and {most}"
        return f"at {least} or above" if least else f"at {most} or below" if most else ""


@dataclass(frozen=True, slots=True)
class Section:
    """One TOML table with its settings."""

    name: str
    help: str
    settings: tuple[Setting, ...]


def _of_rules(section: str) -> Callable[..., Setting]:
    def make(name: str, field: str, form: Form, text: str, **limits: float) -> Setting:
        return Setting(section, name, form, getattr(DEFAULT_RULES, field), text, field, **limits)

    return make


def _of_options(name: str, field: str, form: Form, text: str, **limits: float) -> Setting:
    return Setting("guard", name, form, getattr(Options(), field), text, field, **limits)


def _level(rule: LevelRule) -> tuple[Setting, Setting]:
    name = rule.level.value
    return (
        Setting(
            "levels",
            name,
            forms.SHARE,
            rule.used_share,
            f"Share of memory used from which the level is `{name}`.",
            least=0.01,
            most=1.0,
        ),
        Setting(
            "levels",
            f"{name}_unless_available",
            forms.SIZE,
            rule.available_max_bytes,
            f"Never `{name}` while more than this is available, whatever the share.",
        ),
    )


_timing = _of_rules("timing")
_victims = _of_rules("victims")

LEVELS = Section(
    "levels",
    "How full memory is. Levels warn and shape what is shown; triggers act.",
    (
        *(setting for rule in DEFAULT_RULES.levels for setting in _level(rule)),
        Setting(
            "levels",
            "margin",
            forms.SHARE,
            DEFAULT_RULES.level_margin_share,
            "A level is left only when used memory is this much below where it was entered.",
            "level_margin_share",
            least=0.0,
            most=0.2,
        ),
    ),
)

TIMING = Section(
    "timing",
    "How often to look, and how long to wait.",
    (
        _timing(
            "interval",
            "interval_ns",
            forms.DURATION,
            "Longest sleep between samples; near the end the guard looks far more often.",
            least=10 * MS,
            most=60 * SECOND,
        ),
        _timing(
            "grace",
            "grace_ns",
            forms.DURATION,
            "Between SIGTERM and SIGKILL, at most; shorter when memory runs out sooner.",
            least=0,
            most=5 * MINUTE,
        ),
        _timing(
            "kill_patience",
            "kill_patience_ns",
            forms.DURATION,
            "After SIGKILL without effect, before the victim counts as stuck.",
            least=100 * MS,
            most=5 * MINUTE,
        ),
        _timing(
            "settle",
            "settle_ns",
            forms.DURATION,
            "After a victim is gone, wait at most this long for its memory to come back.",
            least=0,
            most=5 * MINUTE,
        ),
        _timing(
            "warn_repeat",
            "warn_repeat_ns",
            forms.DURATION,
            "The same warning is repeated no sooner than this.",
            least=1 * SECOND,
            most=24 * 60 * MINUTE,
        ),
    ),
)

VICTIMS = Section(
    "victims",
    "Who may be ended, and what counts as enough.",
    (
        _victims(
            "recovery",
            "recovery",
            forms.LIMIT,
            "What should be available, or free in swap, when the guard is done.",
        ),
        _victims(
            "family_share",
            "family_share",
            forms.SHARE,
            "A family is judged as one when it holds at least this share of the growth.",
            least=0.01,
            most=1.0,
        ),
        _victims(
            "unit_kill",
            "unit_kill",
            forms.FLAG,
            "Whether an application unit may be ended as a whole.",
        ),
        _victims(
            "kill_within_cgroup",
            "kill_within_cgroup",
            forms.FLAG,
            "Whether to act when a cgroup, not the machine, runs into its own limit.",
        ),
        _victims(
            "read_back",
            "read_back",
            forms.FLAG,
            "After an end, whether what those who wait had lost to a disk is read back for them.",
        ),
    ),
)

GUARD = Section(
    "guard",
    "How the daemon runs. Takes effect at the next start, not on reload.",
    (
        _of_options(
            "dry_run", "dry_run", forms.FLAG, "Decide and record, but end and free nothing."
        ),
        _of_options(
            "only_uid",
            "only_uid",
            forms.INTEGER,
            "Guard this user's processes only (a number; absent means everybody's).",
            least=0,
            most=2**32 - 2,
        ),
        _of_options(
            "socket", "socket_path", forms.PATH, "The control socket; its folder is created."
        ),
        _of_options("record_dir", "record_dir", forms.PATH, "Where episodes are kept."),
        _of_options(
            "record_ring",
            "record_ring_bytes",
            forms.SIZE,
            "Memory for the flight recorder.",
            least=64 * KIB,
            most=64 * MIB,
        ),
        _of_options(
            "record_disk",
            "record_disk_bytes",
            forms.SIZE,
            "Disk for kept episodes; the oldest go first.",
            least=1 * MIB,
            most=64 * GIB,
        ),
        _of_options(
            "nice",
            "nice",
            forms.INTEGER,
            "CPU priority; below 0 only while there is no time to lose, and 0 else.",
            least=-20,
            most=19,
        ),
        _of_options(
            "realtime",
            "realtime",
            forms.FLAG,
            "Run under SCHED_RR 1; with RT_GROUP_SCHED that blocks the cpu controller.",
        ),
        _of_options(
            "oom_score_adj",
            "oom_score_adj",
            forms.INTEGER,
            "The guard's own, for the kernel's killer.",
            least=-1000,
            most=1000,
        ),
        _of_options(
            "lock_memory", "lock_memory", forms.FLAG, "Keep the guard's memory out of swap."
        ),
        _of_options(
            "relief", "relief", forms.FLAG, "Start the helper that frees what is safe to free."
        ),
        _of_options(
            "log",
            "log_style",
            forms.choice("auto", "plain", "journal"),
            "How the guard speaks: auto sees whether the journal listens.",
        ),
    ),
)

SECTIONS = (LEVELS, TIMING, VICTIMS, GUARD)
TRIGGERS_HELP = (
    "When to act. Within a trigger all conditions hold at once; triggers are alternatives."
)
BY_KEY: Mapping[str, Setting] = {
    setting.key: setting for section in SECTIONS for setting in section.settings
}
