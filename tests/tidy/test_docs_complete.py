"""Documents that are read off tables are what the tables say, and nothing is left out."""

import re
from pathlib import Path

import click
import pytest

from forestall.cli.docs import pages
from forestall.cli.exits import EXITS
from forestall.cli.main import command as root
from forestall.cli.table import HIDDEN, SECTIONS, all_rows
from forestall.config.table import BY_KEY

REPO = Path(__file__).parents[2]
CLI = REPO / "src/forestall/cli"


@pytest.mark.parametrize("name", sorted(pages()))
def test_a_generated_page_is_what_its_table_says(name):
    held = (REPO / "docs" / name).read_text()

    assert held == pages()[name], "run make docs"


@pytest.mark.parametrize("row", all_rows(), ids=lambda row: row.name)
def test_every_command_and_every_option_says_what_it_does(row):
    context = click.Context(root, info_name="forestall")
    waiting = [root.get_command(context, row.name)]
    silent = []
    while waiting:
        one = waiting.pop()
        if not one.help:
            silent.append(one.name)
        if isinstance(one, click.Group):
            waiting += one.commands.values()
        for param in one.params:
            if isinstance(param, click.Option) and not param.help and not param.hidden:
                silent.append(f"{one.name} {param.opts[0]}")

    assert silent == []


def test_every_command_is_documented():
    text = (REPO / "docs/commands.md").read_text()
    hidden = {row.name for row in HIDDEN}

    missing = [row.name for row in all_rows() if f"forestall {row.name}" not in text]
    assert set(missing) <= hidden


def test_every_module_that_holds_a_command_is_in_the_table():
    rows = {row.module for _title, rows in SECTIONS for row in rows}
    rows |= {row.module for row in HIDDEN}
    commands = {path.stem for path in CLI.glob("*.py") if "\ndef command(" in path.read_text()} - {
        "main"
    }

    assert commands - rows == set()


def test_every_setting_is_documented():
    text = (REPO / "docs/settings.md").read_text()

    assert [key for key in BY_KEY if f"| `{key.partition('.')[2]}` |" not in text] == []


def test_exit_codes_are_told_apart():
    codes = [row.code for row in EXITS]

    assert sorted(set(codes)) == sorted(codes)


def test_every_test_that_the_seeds_table_names_is_there():
    """A row that names no living test is a promise nobody keeps."""
    text = (REPO / "docs" / "from-the-seeds.md").read_text()
    files = sorted((REPO / "tests").rglob("test_*.py"))
    known = {path.stem for path in files}
    for path in files:
        known.update(re.findall(r"def (test_\w+)", path.read_text()))

    assert sorted(set(re.findall(r"`(test_\w+)`", text)) - known) == []
