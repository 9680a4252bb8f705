"""Memory of the idle guard beside its peers: the same interpreter, idle, locked, warmed up."""

import pytest

from forestall.core.rules import DEFAULT_RULES
from tests.bench import support
from tests.bench.support import kib, times

pytestmark = pytest.mark.bench

SETTLE_S = 3
RSS_KIB_MAX = 14 * 1024
DIRTY_KIB_MAX = 7 * 1024
TOGETHER_KIB_MAX = 25 * 1024
OF_NOHANG_MAX = 0.75
SLACK = 1.05
"""How much of the interpreter's text is resident depends on who else runs it."""


def idle(context):
    with context as process:
        support.wait_for_end(process, SETTLE_S)
        return support.memory_of(process.pid)


def test_the_idle_guard_is_small(board, tmp_path):
    alone, company = tmp_path / "alone", tmp_path / "company"
    alone.mkdir()
    company.mkdir()
    with support.guard(DEFAULT_RULES, alone, relief=False) as process:
        support.wait_for_end(process, SETTLE_S)
        rss, _pss, dirty = support.memory_of(process.pid)
    with support.guard(DEFAULT_RULES, company) as process:
        support.wait_for_end(process, SETTLE_S)
        kin = [process.pid, *support.children_of(process.pid)]
        together = sum(support.memory_of(pid)[1] for pid in kin)
        beside_relief = support.memory_of(process.pid)
    earlyoom = support.peer("earlyoom")
    theirs = idle(support.earlyoom(earlyoom)) if earlyoom else None
    nohang = support.peer("nohang")
    python_s = idle(support.nohang(nohang, tmp_path)) if nohang else None
    if python_s is None:
        board.note("nohang is not installed: its columns are empty")
    if theirs is None:
        board.note("earlyoom is not installed: its columns are empty")
    ratio = rss / python_s[0] if python_s else None

    board.show(
        "idle RSS, guard alone",
        kib(rss),
        earlyoom=kib(theirs[0]) if theirs else "",
        nohang=kib(python_s[0]) if python_s else "",
        ratio=f"{times(ratio)} nohang" if ratio else "",
        limit=f"{kib(RSS_KIB_MAX)}; {times(OF_NOHANG_MAX)} nohang",
        met=rss <= RSS_KIB_MAX and (ratio is None or ratio <= OF_NOHANG_MAX),
    )
    board.show(
        "idle private dirty, guard alone",
        kib(dirty),
        earlyoom=kib(theirs[2]) if theirs else "",
        nohang=kib(python_s[2]) if python_s else "",
        ratio=f"{times(dirty / python_s[2])} nohang" if python_s else "",
        limit=kib(DIRTY_KIB_MAX),
        met=dirty <= DIRTY_KIB_MAX,
    )
    board.show("the same beside relief (pages of the fork are shared)", kib(beside_relief[2]))
    board.show(
        "guard and relief together, PSS",
        kib(together),
        limit=kib(TOGETHER_KIB_MAX),
        met=together <= TOGETHER_KIB_MAX,
    )
    assert len(kin) == 2, "relief was not running"
    assert rss <= RSS_KIB_MAX
    assert dirty <= DIRTY_KIB_MAX
    assert together <= TOGETHER_KIB_MAX
    assert ratio is None or ratio <= OF_NOHANG_MAX * SLACK
