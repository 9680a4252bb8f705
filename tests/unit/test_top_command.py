"""forestall top where it cannot run: without its extra, without a terminal; and its pure parts."""

import subprocess
import sys

import pytest

from forestall.core.model import ProcessId
from forestall.tui import deeds
from forestall.tui.history import BLOCKS, draw

WITHOUT_TEXTUAL = """
import sys
sys.modules["textual"] = None
sys.modules["textual.app"] = None
from forestall.cli.main import run
sys.exit(run(["top"]))
"""


def test_without_the_extra_it_says_what_to_install_and_what_to_use_instead():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TEXTUAL],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 4
    assert "pip install 'forestall[tui]'" in done.stderr
    assert "forestall scores --watch" in done.stderr


def test_without_a_terminal_it_points_to_json(capsys):
    pytest.importorskip("textual")
    from forestall.cli import main

    assert main.run(["top"]) == 2
    assert "forestall scores --json" in capsys.readouterr().err


def test_no_other_command_imports_textual():
    script = (
        "import sys; from forestall.cli import main; main.run(['scores', '--top', '1']);"
        "main.run(['top', '--help']); sys.exit('textual' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.DEVNULL, check=False)

    assert done.returncode == 0


def test_a_line_is_drawn_of_blocks_and_the_unknown_is_no_zero():
    assert draw([0.0, 0.5, 1.0], 10, top=1.0) == BLOCKS[0] + BLOCKS[4] + BLOCKS[-1]
    assert draw([None, 1.0], 10) == "·█"
    assert draw([0.0, 0.0], 10) == BLOCKS[0] * 2
    assert draw([1, 2, 3], 2) == draw([2, 3], 2)
    assert draw([], 10) == draw([1.0], 0) == ""


@pytest.mark.parametrize(
    ("text", "adj"), [("5", 5), (" -1000 ", -1000), ("1001", None), ("", None)]
)
def test_typed_adjustments(text, adj):
    assert deeds.parse_adj(text) == adj


def test_undoing_needs_to_know_what_was_there():
    deed = deeds.Deed(method="SetAdj", process=ProcessId(1, 1), question="?", done="d")

    assert deeds.undoing(deed, {}) is None
    assert deeds.undoing(deed, {"before": -3}).parameters == {"adj": -3}
