"""The conditions of triggers: ``stall_full[2s] > 25%`` to a Condition and back.

    condition = signal [ "[" duration "]" ] ("<" | ">") amount

Rule: parsed by hand, one comparison per condition; what is longer than that is
several conditions in a list. A table says what each signal takes.
"""

from __future__ import annotations

from dataclasses import dataclass

from forestall.config import forms
from forestall.config.suggest import did_you_mean
from forestall.core.rules import Condition, Signal
from forestall.core.units import MS, SECOND

WINDOW_NS_MIN = 100 * MS
WINDOW_NS_MAX = 30 * SECOND
TEXT_CHARACTERS_MAX = 200


@dataclass(frozen=True, slots=True)
class SignalForm:
    """What a signal is compared with, for the parser and the documentation."""

    signal: Signal
    takes: str
    """limit, share, duration or rate."""
    window: bool
    example: str
    help: str


SIGNALS = (
    SignalForm(
        Signal.AVAILABLE,
        "limit",
        window=False,
        example="available < min(2%, 256MiB)",
        help="Memory that can be had without swapping; a percentage is one of all memory.",
    ),
    SignalForm(
        Signal.SWAP_FREE,
        "limit",
        window=False,
        example="swap_free < 10%",
        help="Usable free swap; a machine without swap counts as having none left.",
    ),
    SignalForm(
        Signal.STALL_SOME,
        "share",
        window=True,
        example="stall_some[1s] > 10%",
        help="Share of the window in which at least one task waited for memory (PSI).",
    ),
    SignalForm(
        Signal.STALL_FULL,
        "share",
        window=True,
        example="stall_full[2s] > 25%",
        help="Share of the window in which all tasks waited for memory (PSI).",
    ),
    SignalForm(
        Signal.STALL_IO,
        "share",
        window=True,
        example="stall_io[2s] > 20%",
        help="Share of the window in which all tasks waited for a disk (PSI).",
    ),
    SignalForm(
        Signal.TIME_LEFT,
        "duration",
        window=False,
        example="time_left < 2.5s",
        help="Until memory and swap are gone, at the pace of the last moments.",
    ),
    SignalForm(
        Signal.SURGE_LEFT,
        "duration",
        window=False,
        example="surge_left < 3s",
        help="The same at the fastest pace of the last six seconds: what programs ask for.",
    ),
    SignalForm(
        Signal.REMAINDER,
        "share",
        window=False,
        example="remainder < 50%",
        help="Memory and swap that are left, as a share of what went within the last minute.",
    ),
    SignalForm(
        Signal.REFAULTS,
        "rate",
        window=True,
        example="refaults[2s] > 20MiB/s",
        help="Memory read back soon after it had been pushed out, per second.",
    ),
    SignalForm(
        Signal.READBACK,
        "share",
        window=True,
        example="readback[2s] > 25%",
        help="Of the pages moved to and from swap in the window, those read back.",
    ),
)
_FORMS = {form.signal.value: form for form in SIGNALS}


def parse_condition(raw: object) -> Condition:
    """Read one condition.

    Raises: ValueError with a sentence for the person who wrote it.
    """
    if not isinstance(raw, str):
        raise ValueError('write a condition in quotes, such as "available < 5%"')
    text = raw.strip()
    if len(text) > TEXT_CHARACTERS_MAX:
        raise ValueError(f"longer than {TEXT_CHARACTERS_MAX} characters")
    left, operator, right = _split(text)
    name, window_ns = _name_and_window(left)
    form = _FORMS.get(name)
    if form is None:
        raise ValueError(f"there is no signal {name!r}{did_you_mean(name, _FORMS)}")
    _check_window(form, window_ns)
    return _condition(form, below=operator == "<", window_ns=window_ns or 0, right=right)


def render_condition(condition: Condition) -> str:
    """Write a condition; ``parse_condition`` reads the same one back."""
    form = _FORMS[condition.signal.value]
    window = f"[{forms.duration_text(condition.window_ns)}]" if form.window else ""
    operator = "<" if condition.below else ">"
    return f"{condition.signal.value}{window} {operator} {_amount_text(form, condition)}"


def _split(text: str) -> tuple[str, str, str]:
    for long in ("<=", ">=", "==", "!="):
        if long in text:
            raise ValueError(f"{long} is not known here; write < or >")
    if " and " in text or " or " in text or "&&" in text:
        raise ValueError("one comparison each; put several into the list, they hold together")
    for operator in ("<", ">"):
        left, found, right = text.partition(operator)
        if found:
            if "<" in right or ">" in right:
                raise ValueError("one comparison each; put several into the list")
            return left.strip(), operator, right.strip()
    raise ValueError(f"{text!r} is no comparison; write for example available < 5%")


def _name_and_window(left: str) -> tuple[str, int | None]:
    name, bracket, rest = left.partition("[")
    if not bracket:
        return left, None
    if not rest.endswith("]"):
        raise ValueError("the window is not closed; write for example stall_full[2s]")
    return name.strip(), forms.parse_duration(rest[:-1])


def _check_window(form: SignalForm, window_ns: int | None) -> None:
    name = form.signal.value
    if form.window and window_ns is None:
        raise ValueError(f"say over which time: {name}[2s]")
    if not form.window and window_ns is not None:
        raise ValueError(f"{name} has no window; write {form.example}")
    if window_ns is not None and not WINDOW_NS_MIN <= window_ns <= WINDOW_NS_MAX:
        low, high = forms.duration_text(WINDOW_NS_MIN), forms.duration_text(WINDOW_NS_MAX)
        raise ValueError(f"the window must lie between {low} and {high}")


def _condition(form: SignalForm, *, below: bool, window_ns: int, right: str) -> Condition:
    if form.takes == "limit":
        return Condition(form.signal, below=below, amount=forms.parse_limit(right))
    if form.takes == "share":
        number = forms.parse_share(right)
    elif form.takes == "duration":
        number = float(forms.parse_duration(right))
    else:
        number = float(forms.parse_size(right.removesuffix("/s").strip()))
    return Condition(form.signal, below=below, number=number, window_ns=window_ns)


def _amount_text(form: SignalForm, condition: Condition) -> str:
    if condition.amount is not None:
        return forms.limit_text(condition.amount)
    if form.takes == "share":
        return forms.share_text(condition.number)
    if form.takes == "duration":
        return forms.duration_text(condition.number)
    return forms.size_text(int(condition.number)) + "/s"
