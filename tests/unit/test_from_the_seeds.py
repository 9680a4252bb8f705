"""Every row of the seeds' table names tests, and they exist."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "from-the-seeds.md"


def test_every_row_names_a_test_that_exists():
    text = "\n".join(file.read_text() for file in TESTS.rglob("test_*.py"))
    defined = set(re.findall(r"^def (test_\w+)", text, re.MULTILINE))
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    rows = [line for line in rows if not line.startswith(("| ---", "| the script"))]

    assert rows
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row)
        assert named, row
        assert set(named) <= defined, row
