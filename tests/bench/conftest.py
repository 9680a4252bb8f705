"""The table at the end of a bench run."""

import pytest

from tests.bench import support
from tests.bench.support import Board

BOARD = pytest.StashKey()


@pytest.fixture(scope="session")
def board(request):
    """Return where figures are put up; they are shown when all has run."""
    return request.config.stash.setdefault(BOARD, Board())


@pytest.fixture
def open_folder():
    """Return a folder that every user reaches."""
    with support.open_folder() as folder:
        yield folder


def pytest_terminal_summary(terminalreporter, config):
    board = config.stash.get(BOARD, None)
    if board is None or not board.figures:
        return
    terminalreporter.section("bars")
    for line in board.lines():
        terminalreporter.write_line(line)
    missed = [figure.bar for figure in board.figures if figure.met is False]
    judged = sum(figure.met is not None for figure in board.figures)
    # Green tests are within their slack; that is not the same as every bar met.
    terminalreporter.write_line(f"{len(missed)} of {judged} bars missed", red=bool(missed))
    for bar in missed:
        terminalreporter.write_line(f"- missed: {bar}", red=True)
