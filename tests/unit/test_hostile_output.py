"""Names are hostile: whatever a process calls itself reaches no terminal and no JSON as it is."""

import json

import pytest
from click.testing import CliRunner

from forestall.cli.changing import print_json
from forestall.cli.explain import document, lines
from forestall.cli.protect import command as protect
from forestall.cli.scores import View, rows_json
from forestall.core.rules import DEFAULT_RULES
from forestall.inspect.explain import explain
from forestall.inspect.scores import Scores
from tests.fakes.proc import GIB_KIB
from tests.fakes.scored import FakeScores

NAMES = {
    "escape": b"\x1b[31mred",
    "line feed": b"two\nlines",
    "markup": b"[bold]x[/]",
    "no utf-8": b"\xff\xfeodd",
    "json": b'","pid":1,"x":"',
    "right to left": "a\u202eb".encode(),
}
SETTINGS = """
[victims]
prefer_more = [{ name = ".", oom_score_adj = 900 }]
"""


@pytest.fixture(params=NAMES.values(), ids=NAMES)
def machine(request, tmp_path):
    fake = FakeScores(tmp_path)
    fake.scored(20, comm=request.param, anon_kib=6 * GIB_KIB, adj=600, start=200)
    fake.scored(21, comm="bystander", anon_kib=8 * GIB_KIB, parent=20)
    fake.name = request.param
    for pid in (1, 20, 21):
        fake.write(f"proc/{pid}/cmdline", fake.name + b"\0")
    fake.write("etc/forestall/forestall.toml", SETTINGS)
    (tmp_path / "etc/forestall/forestall.toml").chmod(0o644)
    return fake


def harmless(text, machine):
    """No byte of it moves a cursor, ends a line of its own, or is half a character."""
    assert "20" in text
    assert all(char.isprintable() or char == "\n" for char in text), text
    assert not [line for line in text.splitlines() if line.strip() == "lines"]
    text.encode()


def harmless_json(text, machine):
    harmless(text, machine)
    for word in every_word(json.loads(text)):
        assert all(char.isprintable() for char in word), word
        word.encode()


def every_word(held):
    if isinstance(held, str):
        yield held
    elif isinstance(held, dict):
        for key, value in held.items():
            yield key
            yield from every_word(value)
    elif isinstance(held, list):
        for value in held:
            yield from every_word(value)


def test_scores_and_explain(machine):
    scores = Scores(DEFAULT_RULES, root=str(machine.root), spare=frozenset(), rank=True)
    scene = scores.look(portraits_max=None)
    found = explain(scores, scene, 20)
    child = explain(scores, scene, 21)
    scores.close()

    for options in ({}, {"as_tree": True}, {"units": True}):
        view = View(**({"above": -1001, "top": 10, "as_tree": False, "units": False} | options))
        harmless(str(view.text(scene)) + " 20", machine)
        harmless_json(rows_json(view.document(scene)), machine)
    for one in (found, child):
        harmless("\n".join(str(line) for line in lines(one, scene, None)), machine)
        harmless_json(json.dumps(document(one, scene, None)), machine)


@pytest.mark.parametrize("words", [("plan",), ("audit",), ("apply", "--dry-run")], ids=" ".join)
def test_protect(machine, words):
    text = CliRunner().invoke(protect, [*words, "--root", str(machine.root)])
    as_json = CliRunner().invoke(protect, [*words, "--json", "--root", str(machine.root)])

    assert text.exit_code in {0, 1}, text.exception
    harmless(text.output, machine)
    harmless_json(as_json.output, machine)


def test_what_admin_commands_print_as_json(machine, capsys):
    name = machine.name.decode("utf-8", "surrogateescape")
    print_json([{"name": name, name: (name, 20)}])

    harmless_json(capsys.readouterr().out, machine)


def test_a_text_of_our_own_keeps_its_lines(capsys):
    print_json({"settings": "a = 1\nb = 2\n", "name": "x\ny"}, as_is=frozenset({"settings"}))

    assert json.loads(capsys.readouterr().out) == {"settings": "a = 1\nb = 2\n", "name": "x\\ny"}
