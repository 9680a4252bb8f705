"""earlyoom's options: reading them as they were meant, writing them as they are. Pure.

Source: earlyoom 1.7 to 1.9, main.c; what an installed version knows is read off
its own help.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from forestall.admin.imports import Imported, kib, percent, standard
from forestall.core.rules import Limit

VARIABLE = "EARLYOOM_ARGS"
_TAKES = frozenset("-m -s -M -S -N -P -r --prefer --avoid --ignore".split())  # noqa: SIM905
_FLAGS = frozenset(
    "-g -n -d -v -p -h -i -k --dryrun --debug --help --syslog --sort-by-rss"  # noqa: SIM905
    " --ignore-root-user --kernel-oom".split()
)
_MISTAKEN = {
    "--memory": "-m",
    "--swap": "-s",
    "--kill-process-group": "-g",
    "--memory-report-interval": "-r",
}
"""Options that never were, from scripts on the web, and what they meant."""
_DEFAULT_PERCENT = "10"
_ELSEWHERE = {
    "-g": "process groups: a family is ended together where it grew together",
    "-n": "desktop notes: forestall agent shows them",
    "-N": "a program after a kill: hooks are set with the alerts",
    "-P": "a program before a kill: hooks are set with the alerts, and never delay the kill",
    "-r": "memory reports: forestall status --watch, and the flight recorder",
    "-p": "its own priority: the guard's service has nice -20 and -1000 anyway",
    "-d": "debugging messages",
    "--debug": "debugging messages",
    "--syslog": "syslog: the guard speaks to the journal",
    "--sort-by-rss": "the order: here it is always what ending it frees, and who grew",
    "--kernel-oom": "leaving it to the kernel's killer is what this is there to avoid",
}


@dataclass(frozen=True, slots=True)
class Option:
    """One option as it stands."""

    flag: str
    value: str | None = None


def assignments(text: str) -> tuple[list[str], list[str]]:
    """Read the variable out of an environment file.

    Returns: The words of the options, and notes. systemd never expands a variable
    in such a file, and the last assignment counts; where a later one was written
    to add to the earlier, it is read as it was meant.
    """
    held, notes, found = "", [], 0
    for line in text.replace("\\\n", " ").splitlines():
        name, sign, rest = line.strip().partition("=")
        if name.removeprefix("export ").strip() != VARIABLE or not sign:
            continue
        found += 1
        given = _unquoted(rest.strip())
        parts = re.split(r"\$\{?" + VARIABLE + r"\}?", given)
        if len(parts) > 1:
            notes.append(
                f"${VARIABLE} is not expanded in this file: earlyoom was started with a word "
                "it does not know; read as it was meant"
            )
            given = f"{held} ".join(parts)
        elif found > 1:
            notes.append(f"{VARIABLE} is set {found} times; the last counts")
        held = given
    try:
        return shlex.split(held), notes
    except ValueError as error:
        return held.split(), [*notes, f"{VARIABLE}: {error}"]


def parse(words: list[str]) -> tuple[list[Option], list[str]]:
    """Tell options apart, and name those that never were."""
    options, notes = [], []
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        flag, sign, value = word.partition("=")
        if not word.startswith("--") and len(word) > 2:
            flag, sign, value = word[:2], "=", word[2:]
            if flag in _FLAGS:
                waiting.insert(0, f"-{value}")
                sign = ""
        if flag in _MISTAKEN:
            notes.append(f"earlyoom has no {flag}, and would not start; read as {_MISTAKEN[flag]}")
            flag = _MISTAKEN[flag]
        if flag in _TAKES:
            given = value if sign else (waiting.pop(0) if waiting else None)
            options.append(Option(flag, given))
        elif flag in _FLAGS:
            options.append(Option(flag))
        else:
            notes.append(f"{word}: earlyoom has no such option")
    return options, notes


def import_earlyoom(text: str, source: str) -> Imported:
    """Read a settings file of earlyoom as ours."""
    words, notes = assignments(text)
    options, more = parse(words)
    got = Imported("earlyoom", source, notes=[*notes, *more])
    held = {option.flag: option.value or "" for option in options}
    got.triggers = _triggers(held, got)
    for option in options:
        _carry(option, got)
    got.notes.append(
        "earlyoom adds or takes 300 points for a name; here a class comes before any amount"
    ) if got.lists else None
    got.notes.append("triggers that are not named here keep the guard's own defaults")
    return got


def _carry(option: Option, got: Imported) -> None:
    lists = {"--prefer": "prefer_more", "--avoid": "avoid_more", "--ignore": "never_more"}
    if option.flag in lists and option.value:
        written = f"{option.flag} {option.value!r}"
        got.entry(lists[option.flag], "name", option.value, written)
    elif option.flag == "--ignore-root-user":
        got.lists.setdefault("never_more", []).append("{ uid = 0 }")
    elif option.flag == "--dryrun":
        got.plain["guard.dry_run"] = "true"
    elif option.flag in _ELSEWHERE:
        value = f" {option.value}" if option.value else ""
        got.lost.append(f"{option.flag}{value}: {_ELSEWHERE[option.flag]}")


def _triggers(held: dict[str, str], got: Imported) -> list:  # type: ignore[type-arg]
    memory = _pair(held, "-m", "-M", got)
    swap = _pair(held, "-s", "-S", got)
    if held.get("-s", "").partition(",")[0] == "100":
        swap = (None, None)
    assert memory[0] is not None
    assert memory[1] is not None
    return standard((memory[0], swap[0]), (memory[1], swap[1]))


def _pair(
    held: dict[str, str], share_flag: str, size_flag: str, got: Imported
) -> tuple[Limit | None, Limit | None]:
    """Return the limits for SIGTERM and SIGKILL; where both units are given the lower counts."""
    term, comma, kill = held.get(share_flag, _DEFAULT_PERCENT).partition(",")
    shares = (percent(term), percent(kill if comma else _half(term)))
    if None in shares and term != "100":
        got.lost.append(
            f"{share_flag} {held[share_flag]}: no percentage; earlyoom's default counts"
        )
    term_kib, comma, kill_kib = held.get(size_flag, "").partition(",")
    sizes = (kib(term_kib), kib(kill_kib if comma else _half(term_kib)))
    return _lower(shares[0], sizes[0], share_flag in held, "10"), _lower(
        shares[1], sizes[1], share_flag in held, "5"
    )


def _lower(share: Limit | None, size: Limit | None, named: bool, default: str) -> Limit | None:  # noqa: FBT001
    if size is None:
        return share or percent(default)
    if share is None or not named:
        return size
    return Limit(share.share, size.size_bytes)


def _half(text: str) -> str:
    try:
        half = float(text) / 2
    except ValueError:
        return ""
    return str(int(half)) if half == int(half) else str(half)


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] in "\"'" and text[-1] == text[0]:
        body = text[1:-1]
        return body.replace('\\"', '"').replace("\\\\", "\\") if text[0] == '"' else body
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the first seed's installer meant; each may be changed."""

    memory_percent: int = 10
    swap_percent: int = 5
    group: bool = True
    report_s: int = 60
    prefer: str = "(^|/)(Web Content|chromium|firefox)$"
    avoid: str = "(^|/)(init|systemd|sshd)$"

    def words(self) -> list[str]:
        """Return the options, one word each."""
        return [
            *("-m", str(self.memory_percent), "-s", str(self.swap_percent)),
            *(["-g"] if self.group else []),
            *("-r", str(self.report_s)),
            *("--prefer", self.prefer, "--avoid", self.avoid),
        ]


def unknown_to(help_text: str, words: list[str]) -> list[str]:
    """Name the options that an installed earlyoom does not have, by its own help."""
    known = set(re.findall(r"(?<![\w-])(--?[A-Za-z][\w-]*)", help_text))
    return [word for word in words if word.startswith("-") and word not in known]


def environment_file(words: list[str]) -> str:
    """Write the one line that systemd reads; quotes inside are systemd's, and the shell's.

    Raises: ValueError for a word that cannot be quoted in it.
    """
    parts = []
    for word in words:
        if any(char in word for char in "'\"\\\n"):
            raise ValueError(f"{word!r}: quotes and backslashes cannot be passed on here")
        plain = re.fullmatch(r"[\w./,:-]+", word)
        parts.append(word if plain else f"'{word}'")
    return (
        "# Written by forestall peers install; forestall peers remove brings back what was here.\n"
        f'{VARIABLE}="{" ".join(parts)}"\n'
    )
