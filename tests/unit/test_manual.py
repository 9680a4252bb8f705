"""Manual pages and completion: read off the commands, whole, and fit for their readers."""

import os
import re
import shutil
import subprocess
import sys

import click
import pytest

from forestall.cli import choices
from forestall.cli.completion import SHELLS, completion_script
from forestall.cli.main import command as root
from forestall.cli.main import run
from forestall.cli.manual import man_pages
from forestall.cli.table import SECTIONS, present

ROWS = [row for _title, rows in SECTIONS for row in present(rows)]
PAGES = man_pages()


def plain_of(page):
    """What is left for a reader when the formatter's signs are taken out."""
    text = re.sub(r"\\f[BIR]", "", PAGES[page]).replace("\\-", "-").replace("\\&", "")
    return text.replace("\\e", "\\")


def commands_of(name):
    one = root.get_command(click.Context(root), name)
    return [one, *(one.commands.values() if isinstance(one, click.Group) else ())]


def test_every_command_has_a_page_and_the_main_page_names_it():
    assert set(PAGES) == {"forestall.1", *(f"forestall-{row.name}.1" for row in ROWS)}
    assert [
        row.name for row in ROWS if f"forestall-{row.name} (1)" not in plain_of("forestall.1")
    ] == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_option_of_every_subcommand_is_in_its_page(row):
    text = plain_of(f"forestall-{row.name}.1")
    missing = []
    for one in commands_of(row.name):
        for param in one.params:
            if isinstance(param, click.Option) and not param.hidden:
                missing += [
                    name for name in (*param.opts, *param.secondary_opts) if name not in text
                ]

    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_no_line_is_taken_for_a_request_by_mistake(page):
    known = {".TH", ".SH", ".SS", ".TP", ".PP", ".B", ".BR", ".I", ".br", ".nf", ".fi", '.\\"'}
    requests = {line.split()[0] for line in PAGES[page].splitlines() if line[:1] in {".", "'"}}

    assert requests <= known
    assert PAGES[page].count("\n.nf\n") == PAGES[page].count("\n.fi\n")
    assert "\b" not in PAGES[page]


@pytest.mark.parametrize("page", PAGES)
def test_the_formatter_has_nothing_to_complain_of(page):
    groff = shutil.which("groff")
    if groff is None:
        pytest.skip("groff is not installed here")
    done = subprocess.run(
        [groff, "-man", "-ww", "-Kutf8", "-Tutf8"],
        input=PAGES[page].encode(),
        check=False,
        capture_output=True,
    )

    assert (done.returncode, done.stderr) == (0, b"")
    assert b"NAME" in re.sub(b".\x08", b"", done.stdout)  # bold is struck over


def offered(words, shell="bash"):
    """Ask as a shell asks: in a process of its own, the line in the environment."""
    done = subprocess.run(
        [sys.executable, "-m", "forestall.cli.main"],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - (not words.endswith(" "))),
            "_FORESTALL_COMPLETE": f"{shell}_complete",
        },
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_commands_subcommands_options_and_choices_are_offered():
    assert {"plain,protect", "plain,scores"} <= set(offered("forestall "))
    assert offered("forestall scor") == ["plain,scores"]
    assert set(offered("forestall protect ")) >= {"plain,apply", "plain,undo"}
    assert offered("forestall scores --t") == ["plain,--top", "plain,--tree"]
    assert offered("forestall completion z") == ["plain,zsh"]


def test_hidden_commands_are_not_offered():
    assert "plain,docs" not in offered("forestall ")


def test_process_numbers_are_offered_with_harmless_names():
    with open("/proc/self/comm", "w") as file:  # noqa: PTH123 - a file of the kernel's
        before = choices.name_of(os.getpid())
        file.write("\x1b[31mred")
    try:
        found = choices.processes(None, None, str(os.getpid()))
    finally:
        with open("/proc/self/comm", "w") as file:  # noqa: PTH123
            file.write(before)

    mine = next(item for item in found if item.value == str(os.getpid()))
    assert mine.help == "\\x1b[31mred"


def test_units_without_a_systemd_are_those_with_a_template():
    found = [item.value for item in choices.units(None, None, "ngin")]

    assert "nginx.service" in found


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_for_each_shell_is_printed(shell, capsys):
    code = run(["completion", shell])

    assert code == 0
    assert capsys.readouterr().out == completion_script(shell)


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_can_read_its_script(shell, tmp_path):
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed here")
    script = tmp_path / "script"
    script.write_text(completion_script(shell))
    done = subprocess.run([program, "-n", str(script)], check=False, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")


def test_bash_completes_a_command_by_the_script(tmp_path):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed here")
    launcher = tmp_path / "forestall"
    launcher.write_text(f'#!/bin/sh\nexec {sys.executable} -m forestall.cli.main "$@"\n')
    launcher.chmod(0o755)
    script = (
        f"{completion_script('bash')}\nCOMP_WORDS=(forestall pro); COMP_CWORD=1\n"
        "_forestall_completion forestall\nprintf '%s\\n' \"${COMPREPLY[@]}\"\n"
    )
    done = subprocess.run(
        [bash, "-c", script],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
        },
        check=False,
        capture_output=True,
        text=True,
    )

    assert (done.stdout, done.returncode) == ("protect\n", 0)
