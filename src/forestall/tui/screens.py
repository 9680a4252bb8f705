"""The small windows over the live screen: a question, a number, the keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from forestall.tui.deeds import ADJ_MAX, parse_adj

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.binding import BindingType

HELP = """\
Processes by the kernel's out-of-memory score: thousandths of RAM and swap

NEXT    K: the kernel's next victim, G: the guard's
MARK    !: a score above 500, !!: above 800

up down  choose a process      s S  sort by the next column; turn round
t        as a tree, or not     u    by unit, or not
/        filter; esc: all      d    details, or not        r  look again

Through the guard, each after a question:
e  end now      p  protect      f  let it go first      a  oom_score_adj
z  undo the last change

q  quit         ?  this page"""

_BOX = """
{name} {{ align: center middle; }}
{name} > Vertical {{
    width: {width}; max-width: 100%; height: auto; border: solid $foreground;
    padding: 1 2; background: $background;
}}
"""


class Question(ModalScreen[bool]):
    """Asks yes or no; anything but yes is no."""

    DEFAULT_CSS = _BOX.format(name="Question", width=64)
    BINDINGS: ClassVar[list[BindingType]] = [
        ("y", "answer(True)", "Yes"),
        ("n,escape,q,enter", "answer(False)", "No"),
    ]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """Lay out the question."""
        with Vertical():
            yield Static(f"{self._text}\n\ny  yes      n  no", markup=False)

    def action_answer(self, yes: bool) -> None:  # noqa: FBT001 - the framework passes it so
        """Close with the answer."""
        self.dismiss(yes)


class Number(ModalScreen[int | None]):
    """Asks for an oom_score_adj; None when somebody thought better of it."""

    # The usual border of an input is drawn with eighths of blocks, which few fonts join.
    DEFAULT_CSS = (
        _BOX.format(name="Number", width=64)
        + """
Number Input, Number Input:focus { border: none; height: 1; padding: 0; margin: 1 0; }
"""
    )
    BINDINGS: ClassVar[list[BindingType]] = [("escape", "leave", "Leave")]

    def __init__(self, who: str, now: int | None) -> None:
        super().__init__()
        self._who = who
        self._now = now

    def compose(self) -> ComposeResult:
        """Lay out the number."""
        with Vertical():
            yield Static(
                f"oom_score_adj of {self._who},\nfrom {-ADJ_MAX} (never) to {ADJ_MAX} (first):",
                markup=False,
            )
            yield Input("" if self._now is None else str(self._now), id="adj")
            yield Static("", id="wrong", markup=False)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Take the number, or say what is wrong with it."""
        event.stop()
        adj = parse_adj(event.value)
        if adj is None:
            self.query_one("#wrong", Static).update(f"A number from {-ADJ_MAX} to {ADJ_MAX}.")
            return
        self.dismiss(adj)

    def action_leave(self) -> None:
        """Close without a number."""
        self.dismiss(None)


class Help(ModalScreen[None]):
    """The keys."""

    DEFAULT_CSS = _BOX.format(name="Help", width=80)
    BINDINGS: ClassVar[list[BindingType]] = [("escape,q,question_mark,enter", "leave", "Leave")]

    def compose(self) -> ComposeResult:
        """Lay out the keys."""
        with Vertical():
            yield Static(HELP, markup=False)

    def action_leave(self) -> None:
        """Close."""
        self.dismiss(None)
