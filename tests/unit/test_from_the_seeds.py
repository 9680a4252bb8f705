"""The seeds' table names tests, and they exist."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "from-the-seeds.md"
REST = ("the same", "`…")
"""A row may point to the one above it."""


def rows():
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    return [line for line in lines if not line.startswith(("| ---", "| the script"))]


def existing():
    files = list(TESTS.rglob("test_*.py"))
    text = "\n".join(file.read_text() for file in files)
    stems = {file.stem for file in files}
    return stems | set(re.findall(r"^ *def (test_\w+)", text, re.MULTILINE))


def test_every_row_names_a_test_that_exists():
    known = existing()

    assert rows()
    for row in rows():
        named = set(re.findall(r"`(test_\w+)`", row))
        cell = row.rstrip(" |").rpartition("| ")[2]
        assert named or cell.startswith(REST), row
        assert named <= known, row
