"""``forestall top``: scores, memory and both next victims, live; actions through the guard.

Rule: readings and calls to the guard block, so they run in a thread, one at a
time; the screen is only ever touched from the application's own.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual.app import App
from textual.widgets import DataTable, Input, Static

from forestall.control.errors import ControlError, Refused
from forestall.core.sentence import plain
from forestall.fields import BY_NAME
from forestall.kernel.errors import KernelError
from forestall.tui import deeds
from forestall.tui.detail import detail_lines, head_lines
from forestall.tui.history import History
from forestall.tui.rows import SORTS, Arrangement, Asked, arrange, columns
from forestall.tui.screens import Help, Number, Question
from forestall.tui.source import refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.app import ComposeResult
    from textual.binding import BindingType

    from forestall.inspect.looking import Scored
    from forestall.tui.rows import Column, Line
    from forestall.tui.source import Detail, Moment, Source

STYLES = {"": "", "warning": "yellow", "critical": "bold red"}
KEYS = "? keys  q quit  / filter  t tree  u units  s sort  e end  p protect  a adj"
FEW_KEYS = "? keys  q quit"
"""Beside the name of a view there is no room for more than how to leave it."""
_LEAVE = {Arrangement.TREE: "t", Arrangement.UNITS: "u"}
SAID_LOOKS = 5
"""So many looks a message stays: ten seconds, and then the keys are back."""


class Top(App[None]):
    """The live screen.

    Args:
        source: What is shown, and who is asked to act.
        interval_s: Between two looks; None looks only when asked to (for tests).
    """

    TITLE = "forestall"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { layout: vertical; }
    #head { height: 4; }
    #table { height: 1fr; scrollbar-size-horizontal: 0; }
    #table > .datatable--cursor { text-style: reverse bold; }
    #detail { height: 7; border-top: solid $foreground; }
    #detail.off { display: none; }
    #filter { display: none; height: 1; border: none; padding: 0; }
    #filter.on { display: block; }
    #foot { height: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        ("q", "quit", "Quit"),
        ("slash", "filter", "Filter"),
        ("escape", "unfilter", "Clear the filter"),
        ("t", "arrange('tree')", "Tree"),
        ("u", "arrange('by unit')", "Units"),
        ("s", "sort", "Sort"),
        ("S", "reverse", "Turn round"),
        ("d", "detail", "Detail"),
        ("r", "look", "Look again"),
        ("e", "end", "End"),
        ("p", "protect", "Protect"),
        ("f", "prefer", "Goes first"),
        ("a", "adj", "oom_score_adj"),
        ("z", "undo", "Undo"),
        ("question_mark", "help", "Help"),
    ]

    def __init__(self, source: Source, *, interval_s: float | None = 2.0) -> None:
        super().__init__()
        self._source = source
        self._interval_s = interval_s
        self._history = History()
        self._asked = Asked()
        self._moment: Moment | None = None
        self._detail: Detail | None = None
        self._columns: tuple[Column, ...] = ()
        self._lines: list[Line] = []
        self._undo: list[deeds.Deed] = []
        self._reading = asyncio.Lock()
        self._said = ""
        self._said_looks = 0

    # What is on it.

    def compose(self) -> ComposeResult:
        """Lay out the screen."""
        yield Static("", id="head", markup=False)
        table: DataTable[Text] = DataTable(
            id="table", cursor_type="row", zebra_stripes=False, cell_padding=0
        )
        yield table
        yield Input(id="filter", placeholder="filter by name, number or unit")
        yield Static("", id="detail", markup=False)
        yield Static(KEYS, id="foot", markup=False)

    async def on_mount(self) -> None:
        """Look for the first time, and from then on again and again."""
        self.query_one("#table", DataTable).focus()
        await self.action_look()
        if self._interval_s is not None:
            self.set_interval(self._interval_s, self.action_look)

    async def action_look(self) -> None:
        """Look again; not while a look is under way: a slow machine is not hurried."""
        if self._reading.locked():
            return
        everybody = bool(self._asked.filter) or self._asked.arrangement is not Arrangement.FLAT
        async with self._reading:
            try:
                moment = await asyncio.to_thread(self._source.look, everybody=everybody)
            except (OSError, KernelError) as error:
                self._say(f"The processes cannot be read: {error}")
                return
        self._moment = moment
        self._history.add(moment)
        self._said_looks -= 1
        if self._said_looks < 0:
            self._said = ""
        self._draw()
        await self._look_closely()

    async def _look_closely(self) -> None:
        moment, line = self._moment, self._under_cursor()
        if moment is None or not self._detail_shown():
            return
        if line is None:
            self._detail = None
            self._draw_detail()
            return
        async with self._reading:
            self._detail = await asyncio.to_thread(self._source.detail, moment.scene, line.pid)
        if not self.is_running:
            return
        self._draw_detail()

    # Drawing.

    def _draw(self) -> None:
        moment = self._moment
        if moment is None:
            return
        head = head_lines(moment, self._history, self.size.width)
        self.query_one("#head", Static).update(_text(head, self.size.width))
        self._draw_table(moment)
        self._draw_foot()

    def _draw_table(self, moment: Moment) -> None:
        table: DataTable[Text] = self.query_one("#table", DataTable)
        before = self._under_cursor()
        self._lines = arrange(moment.scene, self._asked, self.size.width)
        wanted = columns(moment.scene, self._asked, self.size.width)
        table.clear(columns=wanted != self._columns)
        if wanted != self._columns:
            self._columns = wanted
            for column in wanted:
                table.add_column(Text(_fit(column.title, column)), width=column.width + 1)
        for line in self._lines:
            style = STYLES[line.mark]
            cells = zip(line.cells, wanted, strict=True)
            table.add_row(*(Text(_fit(cell, column), style) for cell, column in cells))
        keys = [line.key for line in self._lines]
        if before is not None and before.key in keys:
            table.move_cursor(row=keys.index(before.key))

    def _draw_detail(self) -> None:
        width = self.size.width
        lines = detail_lines(self._detail, self._history, width)
        self.query_one("#detail", Static).update(_text(lines, width))

    def _draw_foot(self) -> None:
        asked = self._asked
        state, keys = [], FEW_KEYS
        if asked.arrangement is not Arrangement.FLAT:
            state.append(asked.arrangement.value)
            keys += f"  {_LEAVE[asked.arrangement]} as it was"
        if asked.sort != "points" or asked.reverse:
            title = BY_NAME[asked.sort].title
            state.append(f"by {title}{' upwards' if asked.reverse else ''}")
        if asked.filter:
            state.append(f"filter {plain(asked.filter)}")
            keys += "  esc without the filter"
        line = f"[{', '.join(state)}] {keys}" if state else KEYS
        self.query_one("#foot", Static).update(_text([self._said or line], self.size.width))

    def _say(self, words: str) -> None:
        self._said = plain(words)
        self._said_looks = SAID_LOOKS
        self._draw_foot()

    def _under_cursor(self) -> Line | None:
        table: DataTable[Text] = self.query_one("#table", DataTable)
        row = table.cursor_row
        return self._lines[row] if 0 <= row < len(self._lines) else None

    def _detail_shown(self) -> bool:
        return not self.query_one("#detail", Static).has_class("off")

    # Looking.

    async def on_data_table_row_highlighted(self) -> None:
        """Show the process the cursor went to."""
        line = self._under_cursor()
        shown = self._detail
        if line is not None and (shown is None or shown.explanation.scored.id.pid != line.pid):
            await self._look_closely()

    def on_resize(self) -> None:
        """Draw again for the new width."""
        self._draw()

    async def action_arrange(self, name: str) -> None:
        """Change to an arrangement, or back from it."""
        wanted = Arrangement(name)
        if self._asked.arrangement is wanted:
            wanted = Arrangement.FLAT
        self._asked = replace(self._asked, arrangement=wanted)
        await self.action_look()

    def action_sort(self) -> None:
        """Sort by the next column."""
        after = (SORTS.index(self._asked.sort) + 1) % len(SORTS)
        self._asked = replace(self._asked, sort=SORTS[after])
        self._draw()

    def action_reverse(self) -> None:
        """Turn the order round."""
        self._asked = replace(self._asked, reverse=not self._asked.reverse)
        self._draw()

    async def action_detail(self) -> None:
        """Show or hide the details."""
        self.query_one("#detail", Static).toggle_class("off")
        await self._look_closely()

    def action_filter(self) -> None:
        """Ask what to filter by."""
        box = self.query_one("#filter", Input)
        box.add_class("on")
        box.focus()

    async def action_unfilter(self) -> None:
        """Clear the filter."""
        box = self.query_one("#filter", Input)
        box.value = ""
        box.remove_class("on")
        self.query_one("#table", DataTable).focus()
        self._said = ""
        self._asked = replace(self._asked, filter="")
        await self.action_look()

    async def on_input_submitted(self, event: Input.Submitted) -> None:
        """Filter by what was typed."""
        if event.input.id != "filter":
            return
        event.input.remove_class("on")
        self.query_one("#table", DataTable).focus()
        self._asked = replace(self._asked, filter=event.value.strip())
        await self.action_look()

    def action_help(self) -> None:
        """Show the keys."""
        self.push_screen(Help())

    # Acting: every one of these asks first, and all of them go through the guard.

    def action_end(self) -> None:
        """End the process under the cursor."""
        self._ask(deeds.end)

    def action_protect(self) -> None:
        """Protect the process under the cursor."""
        self._ask(deeds.protect)

    def action_prefer(self) -> None:
        """Let the process under the cursor go first."""
        self._ask(deeds.prefer)

    def action_adj(self) -> None:
        """Set the oom_score_adj of the process under the cursor."""
        one = self._actable()
        if one is None:
            return

        def typed(adj: int | None) -> None:
            if adj is not None:
                self._confirm(deeds.set_adj(one, adj, root=self._source.root))

        self.push_screen(Number(f"{plain(one.name)} ({one.id.pid})", one.oom_score_adj), typed)

    def action_undo(self) -> None:
        """Take the last change back."""
        if self._may_act():
            if self._undo:
                self._confirm(self._undo[-1])
            else:
                self._say("There is nothing to undo.")

    def _ask(self, make: Callable[[Scored], deeds.Deed]) -> None:
        one = self._actable()
        if one is not None:
            self._confirm(make(one))

    def _confirm(self, deed: deeds.Deed) -> None:
        def answered(yes: bool | None) -> None:  # noqa: FBT001 - the framework passes it so
            if yes:
                self.run_worker(self._do(deed), exclusive=False)
            else:
                self._say("Nothing was changed.")

        self.push_screen(Question(deed.question), answered)

    async def _do(self, deed: deeds.Deed) -> None:
        try:
            async with self._reading:
                answer: dict[str, Any] = await asyncio.to_thread(
                    self._source.call, deed.method, deed.process, **deed.parameters
                )
        except ControlError as error:
            self._say(f"The guard did not: {refusal(error)}.")
            if isinstance(error, Refused):
                self._forget(deed)  # or it would stand before all that was done earlier
            return
        self._forget(deed)
        taking_back = deeds.undoing(deed, answer)
        if taking_back is not None:
            self._undo.append(taking_back)
            del self._undo[: -deeds.UNDO_MAX]
        outcome = answer.get("outcome")
        undo = "; z undoes it" if taking_back is not None else ""
        self._say(f"{deed.done}{f': {outcome}' if outcome else ''}{undo}.")
        await self.action_look()

    def _forget(self, deed: deeds.Deed) -> None:
        if self._undo and self._undo[-1] is deed:
            self._undo.pop()

    def _may_act(self) -> bool:
        moment = self._moment
        if moment is None or not moment.may_act:
            why = moment.why_not if moment is not None else "nothing was read yet"
            self._say(f"Read-only: {why}.")
            return False
        return True

    def _actable(self) -> Scored | None:
        line, moment = self._under_cursor(), self._moment
        if not self._may_act() or line is None or moment is None:
            return None
        if self._asked.arrangement is Arrangement.UNITS:
            self._say("Choose a process: actions are for one at a time (u leaves the units).")
            return None
        found = (one for one in moment.scene.look.scored if one.id.pid == line.pid)
        return next(found, None)


def _fit(cell: str, column: Column) -> str:
    if len(cell) > column.width:
        cell = cell[: column.width - 1] + "…"
    return f"{cell:<{column.width}} " if column.text else f"{cell:>{column.width}} "


def _text(lines: list[str], width: int) -> Text:
    # Cut here: what wraps would push the next line out of its place.
    return Text(
        "\n".join(line if len(line) <= width else line[: width - 1] + "…" for line in lines)
    )
